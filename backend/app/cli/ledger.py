"""`nanobanana ledger`: an operator confirms that old months are to be dropped."""

import asyncio
import sys

import click

from app.assembly import open_services, writing_url
from app.cli.database import settings_of_command
from app.cli.errors import errors_as_sentences
from app.core.settings import ConfigurationError, Settings
from app.generations.prune import Pruner


@click.group()
def ledger() -> None:
    """Look after the recorded generations."""


@ledger.command()
@click.option("--yes", is_flag=True, help="Drop them; without it, they are listed.")
def prune(*, yes: bool) -> None:
    """Drop all months of generations that are older than LEDGER_RETENTION_DAYS.

    The server does so by itself, month by month, but stops where one has been due for more than a day. Check the
    database's clock and the setting first: what is dropped is gone, images included. Ends with 1 if a month is kept.
    """
    with errors_as_sentences():
        settings = settings_of_command()
        days = settings.ledger_retention_days
        if days is None:
            raise ConfigurationError("LEDGER_RETENTION_DAYS is not set: generations are kept for ever.")
        sys.exit(asyncio.run(_prune(settings, days, is_confirmed=yes)))


async def _prune(settings: Settings, days: int, *, is_confirmed: bool) -> int:
    """The exit status."""
    async with open_services(settings.model_copy(update={"ledger_retention_days": None})) as services:
        pruner = Pruner(services.generations, writing_url(settings), days, services.metrics)
        due = [month.table for month in await pruner.find_due()]
        click.echo(f"Older than {days} days by the database's clock: {', '.join(due) or 'no month'}.")
        if due and not is_confirmed:
            click.echo("Run it with --yes to drop them.")
        if not due or not is_confirmed:
            return 0
        dropped, obstacle = await pruner.prune(is_confirmed=True)
        click.echo(f"Dropped: {', '.join(dropped) or 'none'}.")
        if obstacle is not None:
            click.echo(f"Kept: {obstacle}")
        return 1 if obstacle else 0
