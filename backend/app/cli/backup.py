"""`nanobanana backup` and `nanobanana restore`: the database of the embedded PostgreSQL in one file."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.checks import run_in_transaction
from app.cli.database import upgrade_schema
from app.cli.errors import errors_as_sentences
from app.core import postgres_backup
from app.core.embedded import EmbeddedPostgresError, embedded_postgres, running_url
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings

_FILE = click.argument("file", type=click.Path(path_type=Path, resolve_path=True))
_TABLES = "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"


@click.command()
@_FILE
def backup(file: Path) -> None:
    """Write the database in DATA_DIR into FILE, while a server serves with it or while none runs.

    FILE is new, and whole when this returns. Copy the images afterwards, never before: docs/backup.md has all steps.
    """
    with errors_as_sentences():
        with _embedded_url(_embedded_settings().data_dir) as url:
            if not asyncio.run(run_in_transaction(url, _count_tables)):
                raise ConfigurationError("There is no database in DATA_DIR.")
            postgres_backup.dump(url, file)
        click.echo(f"The database is in {file}. Copy the images now.")


@click.command()
@_FILE
def restore(file: Path) -> None:
    """Fill the empty DATA_DIR with the database in FILE, all of it or nothing. No server may run on it.

    FILE is from `nanobanana backup`, or from `pg_dump --format=custom` of another PostgreSQL up to version 18.
    """
    with errors_as_sentences():
        data_dir = _embedded_settings().data_dir
        with embedded_postgres(data_dir) as url:
            if asyncio.run(run_in_transaction(url, _count_tables)):
                raise ConfigurationError(f"{data_dir} holds a database already. Restore into an empty DATA_DIR.")
            postgres_backup.restore(url, file)
            upgrade_schema(url)
        click.echo(f"The database of {file} is in {data_dir}. Copy the images there, then start the server.")


def _embedded_settings() -> Settings:
    settings = load_settings()
    if settings.database_url is not None:
        raise ConfigurationError(
            "DATABASE_URL is set: use pg_dump and pg_restore of that PostgreSQL, as docs/backup.md has it."
        )
    return settings


@contextmanager
def _embedded_url(data_dir: Path) -> Iterator[str]:
    """The URL of the PostgreSQL that runs on the folder, or of one that runs for the length of the `with`."""
    try:
        url = running_url(data_dir)
    except EmbeddedPostgresError:
        with embedded_postgres(data_dir) as url:
            yield url
    else:
        yield url


async def _count_tables(session: AsyncSession) -> int:
    return int(await session.scalar(text(_TABLES)) or 0)
