"""The command line: `nanobanana serve | migrate | check | settings`, and groups of commands about one thing each."""

import click

from app import __version__
from app.cli.accounts import accounts
from app.cli.backup import backup, restore
from app.cli.check import check
from app.cli.database import migrate
from app.cli.images import images
from app.cli.invitations import invitations
from app.cli.jobs import jobs
from app.cli.keys import keys
from app.cli.ledger import ledger
from app.cli.limits import limits
from app.cli.models import models
from app.cli.reload import reload
from app.cli.serve import serve
from app.cli.settings import settings
from app.cli.usage import usage


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """NanoBanana: an image-generation API platform that anyone can run.

    Settings come from environment variables and from .env; `nanobanana settings` lists every one of them.
    """


for command in (
    *(serve, reload, migrate, check, settings),
    *(accounts, keys, invitations, limits, models, usage, images, jobs, ledger, backup, restore),
):
    main.add_command(command)
