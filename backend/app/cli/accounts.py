"""`nanobanana accounts`: an operator disables and enables accounts."""

from functools import partial

import click

from app.cli.database import run_on_database
from app.cli.errors import errors_as_sentences
from app.core.settings import ConfigurationError
from app.features.auth.service import set_account_active


@click.group()
def accounts() -> None:
    """Disable and enable accounts."""


@accounts.command()
@click.argument("email")
def disable(email: str) -> None:
    """Stop the account EMAIL: its login tokens, its sessions and all its keys are refused at once."""
    _set_active(email, active=False)


@accounts.command()
@click.argument("email")
def enable(email: str) -> None:
    """Let the account EMAIL work again, with the keys that it had."""
    _set_active(email, active=True)


def _set_active(email: str, *, active: bool) -> None:
    with errors_as_sentences():
        if not run_on_database(partial(set_account_active, email=email, active=active)):
            raise ConfigurationError("There is no account with that email.")
        click.echo(f"The account is {'enabled' if active else 'disabled'}.")
