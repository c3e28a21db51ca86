"""`nanobanana migrate`, and the database that the other commands work on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import click
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app import migrations
from app.assembly import writing_url
from app.checks import check_fitness, run_in_transaction, unreachable_sentence
from app.cli.errors import errors_as_sentences
from app.core.db import DATABASE_ERRORS
from app.core.embedded import running_url
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings
from app.migrations import SchemaState

Result = TypeVar("Result")

_ROWS_AT_A_TIME = 500


@click.command()
def migrate() -> None:
    """Bring the database to this version's schema.

    Safe to run from several machines at once. Without DATABASE_URL there is nothing to do: `serve` migrates its own
    PostgreSQL by itself.
    """
    with errors_as_sentences():
        settings = load_settings()
        url = settings.database_direct_url or settings.database_url
        if url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set. `nanobanana serve` migrates its own PostgreSQL by itself."
            )
        if upgrade_schema(url.get_secret_value()) == "newer":
            click.echo("The database's schema is newer than this program; nothing to do.")
        else:
            click.echo("The database's schema is up to date.")


def upgrade_schema(database_url: str) -> SchemaState:
    """Runs all migrations that the database lacks; none on a schema that is newer than this program.

    Raises ConfigurationError for a database that cannot be used, and where a migration stops; the next run goes on.
    """
    state = asyncio.run(run_in_transaction(database_url, check_fitness))
    if state == "newer":
        return state
    try:
        migrations.upgrade(database_url)
    except DBAPIError as error:
        raise ConfigurationError(f"The migration stopped; run it again, and it goes on: {error.orig}") from None
    except DATABASE_ERRORS as error:
        raise ConfigurationError(unreachable_sentence(error)) from None
    return "current"


def run_on_database(action: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
    """What the action returns, run in one transaction on the database of DATABASE_URL, or without one on the embedded
    PostgreSQL that a server is running on DATA_DIR.

    Raises ConfigurationError where the database cannot be reached, and EmbeddedPostgresError where none is running.
    """
    return asyncio.run(run_in_transaction(database_url_of(load_settings()), action))


def settings_of_command() -> Settings:
    """The settings with which a command opens all services: with a database, as `database_url_of` finds it, and without
    a worker, so that a command draws no jobs.

    Raises ConfigurationError, and EmbeddedPostgresError where no server is running.
    """
    settings = load_settings().with_secret().model_copy(update={"work": False})
    if settings.database_url is None:
        settings = settings.model_copy(update={"database_url": SecretStr(database_url_of(settings))})
    return settings


def database_url_of(settings: Settings) -> str:
    """The database that a command works on, without a pooler; without DATABASE_URL, the embedded PostgreSQL that a
    server is running on DATA_DIR. Raises EmbeddedPostgresError where none is running.
    """
    return running_url(settings.data_dir) if settings.database_url is None else writing_url(settings)


def pages_on_database(
    find_page: Callable[..., Awaitable[Sequence[Result]]], position: Callable[[Result], str]
) -> Iterator[Result]:
    """All rows of a list, read page by page, each in a transaction of its own. `find_page` gets a session, `after`, the
    position of the last row that was read, at first an empty text, and `limit`; it returns nothing at the end.
    """
    after = ""
    while rows := run_on_database(partial(find_page, after=after, limit=_ROWS_AT_A_TIME)):
        yield from rows
        after = position(rows[-1])
