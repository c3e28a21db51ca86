"""Creates the database of DATABASE_URL in UTF8: `python -m app.cli.create_database`, for scripts/init-db.sh."""

import asyncio
from dataclasses import replace

import asyncpg
import click

from app.checks import unreachable_sentence
from app.cli.errors import errors_as_sentences
from app.core.database_connection import Connection, ConnectionOptions, connect
from app.core.database_url import DatabaseParameters, parse_database_url
from app.core.db import DATABASE_ERRORS
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings

_MAINTENANCE = "postgres"  # a database that every server has
_OPTIONS = ConnectionOptions(settings={"timezone": "UTC"}, answer_seconds=None)
# Without the template's locale, which may not fit the encoding.
_CREATE = "create database {} encoding 'UTF8' lc_collate 'C' lc_ctype 'C' template template0"


@click.command()
def main() -> None:
    """Create the database of DATABASE_URL, unless it is there."""
    with errors_as_sentences():
        settings = load_settings()
        url = settings.database_direct_url or settings.database_url
        if url is None:
            raise ConfigurationError("DATABASE_URL is not set.")
        click.echo(asyncio.run(create_database(url.get_secret_value())))


async def create_database(url: str) -> str:
    """Returns what was done, as a sentence. Raises ConfigurationError where the server cannot be reached, or its role
    may not create databases.
    """
    parameters = parse_database_url(url)
    try:
        try:
            await (await connect(parameters, _OPTIONS)).close()
        except asyncpg.InvalidCatalogNameError:
            maintenance = await connect(replace(parameters, database=_MAINTENANCE), _OPTIONS)
        else:
            return "The database is there already."
        try:
            return await _create(maintenance, parameters)
        finally:
            await maintenance.close()
    except DATABASE_ERRORS as error:
        raise ConfigurationError(unreachable_sentence(error)) from None


async def _create(maintenance: Connection, parameters: DatabaseParameters) -> str:
    name = parameters.database or parameters.user or await maintenance.fetchval("select current_user")
    quoted = await maintenance.fetchval("select quote_ident($1)", name)
    role = await maintenance.fetchval("select quote_ident(current_user)")
    try:
        await maintenance.execute(_CREATE.format(quoted))
    except asyncpg.DuplicateDatabaseError:
        return "The database is there already."
    except asyncpg.InsufficientPrivilegeError:
        sql = f"{_CREATE.format(quoted)} owner {role}"
        raise ConfigurationError(
            f"The role of DATABASE_URL may not create databases. Have a superuser run in psql: {sql};"
        ) from None
    return "Created the database."


if __name__ == "__main__":
    main()
