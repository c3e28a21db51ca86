"""`nanobanana limits`: an operator gives a key or an account limits of its own."""

from functools import partial

import click

from app.cli.database import run_on_database
from app.cli.errors import errors_as_sentences
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from app.features.keys import limits as own_limits


@click.group()
def limits() -> None:
    """Give keys and accounts limits of their own."""


@limits.command("set")
@click.argument("owner", metavar="KEY_ID|EMAIL|ACCOUNT_ID|USER_ID")
@click.option("--generate", help="Images of the key, or of all the account's keys together: 600/minute, or default.")
@click.option("--generate-per-key", help="Images of each key of the account: 600/minute, or default.")
@click.option("--concurrency", help="Generations at a time of the key, or of each key of the account: 100, or default.")
def set_limits(owner: str, generate: str | None, generate_per_key: str | None, concurrency: str | None) -> None:
    """Set limits of a key or an account; limits that are not named stay.

    A key's own limit goes before its account's, and that before the settings'. Every process knows within ten seconds.
    """
    with errors_as_sentences():
        options = {
            "generate_limit": generate,
            "generate_limit_per_key": generate_per_key,
            "generate_concurrency": concurrency,
        }
        change = own_limits.read_change({name: text for name, text in options.items() if text is not None})
        if not run_on_database(partial(own_limits.set_limits, owner=owner, change=change)):
            raise ConfigurationError("There is no such key or account.")
        click.echo("The limits are set.")


@limits.command("show")
@click.argument("owner", metavar="KEY_ID|EMAIL|ACCOUNT_ID|USER_ID")
def show_limits(owner: str) -> None:
    """Show the limits that were set for a key, or for an account and its keys, and those that hold by default."""
    with errors_as_sentences():
        found = run_on_database(partial(own_limits.find_limits, owner=owner, settings=load_settings()))
        if not found:
            raise ConfigurationError("There is no such key or account.")
        for own in found:
            click.echo(f"{own.owner}: {own}")
