"""`nanobanana invitations`: an operator makes, lists and revokes links to sign up with."""

import re
from datetime import timedelta
from functools import partial

import click

from app.cli.database import pages_on_database, run_on_database
from app.cli.errors import errors_as_sentences
from app.cli.output import Form, as_json, print_rows
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from app.features.auth import invitations as service
from app.features.auth.administration import read_email

_USES_MAX = 1_000_000
_LIFETIME = re.compile(r"([1-9]\d{0,3})([hd])", re.ASCII)
_UNITS = {"h": "hours", "d": "days"}
_COLUMNS = ("id", "email", "uses", "uses_max", "created_at", "expires_at", "revoked_at")
_WIDTHS = {"id": 34, "email": 30, "uses": 4, "uses_max": 8, "expires_at": 27, "revoked_at": 27}


@click.group()
def invitations() -> None:
    """Make, list and revoke links to sign up with, for REGISTRATION=invite."""


@invitations.command()
@click.option("--email", help="Only this email may sign up with it.")
@click.option("--expires", default="7d", help="For how long it is good, such as 12h or 30d; 7d by default.")
@click.option(
    "--uses", type=click.IntRange(1, _USES_MAX), default=1, help="How many may sign up with it; 1 by default."
)
def create(email: str | None, expires: str, uses: int) -> None:
    """Print a new link. It is shown only here: what is kept is a hash."""
    with errors_as_sentences():
        canonical = None if email is None else read_email(email)
        new = partial(service.create, email=canonical, lifetime=_lifetime(expires), uses=uses)
        made = run_on_database(new)
        settings = load_settings()
        click.echo(f"{settings.public_url}/sign-up?invitation={made.token}")
        if settings.registration != "invite":
            click.echo(f"REGISTRATION is {settings.registration} here: only with invite is a link asked for.", err=True)


@invitations.command("list")
@as_json
def list_invitations(form: Form) -> None:
    """Print all invitations, oldest first; those that are over too."""
    found = pages_on_database(service.find_page, lambda row: row.id)
    with errors_as_sentences():
        print_rows(({name: getattr(each, name) for name in _COLUMNS} for each in found), _WIDTHS, form=form)


@invitations.command()
@click.argument("invitation_id")
def revoke(invitation_id: str) -> None:
    """Refuse whoever comes with this invitation from now on. Accounts that were made with it stay."""
    with errors_as_sentences():
        if not run_on_database(partial(service.revoke, invitation_id=invitation_id)):
            raise ConfigurationError("There is no such invitation, or it was revoked already.")
        click.echo("The invitation is revoked.")


def _lifetime(text: str) -> timedelta:
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise click.BadParameter("must look like 12h or 30d", param_hint="--expires")
    number, unit = match.groups()
    return timedelta(**{_UNITS[unit]: int(number)})
