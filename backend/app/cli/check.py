"""`nanobanana check`: every dependency that the settings name is tried."""

import sys

import click

from app.checks import CHECKS
from app.cli.errors import errors_as_sentences
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings


@click.command()
def check() -> None:
    """Try everything that the settings name: the database, Redis, the image store, the providers and Stripe.

    Without DATABASE_URL that is the database of the `nanobanana serve` that is running, if one is.

    Prints a line for each. Ends with 1 if any of them cannot be used. Sends nothing that costs money.
    """
    with errors_as_sentences():
        settings = load_settings()
        settings.check_secret()
    all_usable = True
    for name, run_check in CHECKS.items():
        try:
            result = run_check(settings)
        except ConfigurationError as error:
            result, all_usable = str(error), False
        click.echo(f"{name}: {result}")
    sys.exit(0 if all_usable else 1)
