"""`nanobanana migrate`, and the database that the other commands work on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
from asyncpg import PostgresError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import migrations
from app.checks import run_in_transaction, unreachable_sentence
from app.cli.errors import errors_as_sentences
from app.core.embedded import running_url
from app.core.settings import ConfigurationError, load_settings

Result = TypeVar("Result")


@click.command()
def migrate() -> None:
    """Bring the database to this version's schema.

    Safe to run from several machines at once. Without DATABASE_URL there is nothing to do: `serve` migrates its own
    PostgreSQL by itself.
    """
    with errors_as_sentences():
        url = load_settings().database_url
        if url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set. `nanobanana serve` migrates its own PostgreSQL by itself."
            )
        upgrade_schema(url.get_secret_value())
        click.echo("The database's schema is up to date.")


def upgrade_schema(database_url: str) -> None:
    """Runs all migrations that the database lacks. Raises ConfigurationError where one stops; the next run goes on."""
    try:
        migrations.upgrade(database_url)
    except (SQLAlchemyError, PostgresError, OSError, TimeoutError) as error:
        if isinstance(error, DBAPIError):
            raise ConfigurationError(f"The migration stopped; run it again, and it goes on: {error.orig}") from None
        raise ConfigurationError(unreachable_sentence(error)) from None


def run_on_database(action: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """What the action returns, run in one transaction on the database of DATABASE_URL, or without one on the embedded
    PostgreSQL that a server is running on DATA_DIR.

    Raises ConfigurationError where the database cannot be reached, and EmbeddedPostgresError where none is running.
    """
    settings = load_settings()
    url = settings.database_url
    database_url = running_url(settings.data_dir) if url is None else url.get_secret_value()
    return asyncio.run(run_in_transaction(database_url, action))
