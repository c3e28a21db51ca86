"""Databases of the version before, and how they are brought to this version's schema and back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url
from tests.harness import fresh_database
from tests.version_before.rows import Rows
from tests.version_before.statements import REVISION
from tests.version_before.statements_by_model import REVISION as NEXT

ONE_MODEL_A_DAY = "create unique index if not exists usage_of_key_and_day_idx on usage (key_id, day)"
"""The index that the version before counts on conflict of, which the next version kept for it. Everything else that it
needs is in the newest schema still.
"""
_BACKEND = Path(__file__).parents[2]


def upgrade(database_url: str, revision: str = "head") -> None:
    """Migrates the database forward, up to the revision."""
    command.upgrade(_config(database_url), revision)


def upgrade_to_next(database_url: str) -> None:
    """Migrates the database to the schema of the next version, on which the version before runs."""
    upgrade(database_url, NEXT)


def downgrade(database_url: str, revision: str = REVISION) -> None:
    """Brings the database back to the schema of the revision, by default that of the version before."""
    command.downgrade(_config(database_url), revision)


def _config(database_url: str) -> Config:
    config = Config(_BACKEND / "alembic.ini")
    config.attributes["database_url"] = database_url
    return config


@contextmanager
def database_of_the_version_before(server_url: str) -> Iterator[tuple[str, Rows]]:
    """The URL of a database as the version before leaves it, and what is in it."""
    with fresh_database(server_url) as url:
        upgrade(url, REVISION)
        yield url, asyncio.run(_fill(url))


async def _fill(database_url: str) -> Rows:
    async with connected(database_url) as database:
        rows = Rows(database)
        await rows.write()
    return rows


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection to the database."""
    plain = make_url(database_url).set(drivername="postgresql")
    connection = await asyncpg.connect(plain.render_as_string(hide_password=False))
    try:
        yield connection
    finally:
        await connection.close()


async def stored(database_url: str) -> dict[str, list[str]]:
    """All rows of the tables that the version before has, as sorted text: each with all its columns, by table. Of a
    deleted image without the prompt, which the migration erases for good.
    """
    async with connected(database_url) as database:
        return {
            table: sorted(_text(row) for (row,) in await database.fetch(_ROWS.format(table)))
            for table in ("users", "browser_sessions", "api_keys", "generations", "claims", "usage")
        }


def _text(row: asyncpg.Record) -> str:
    is_deleted = row.get("deleted_at") is not None
    return str({name: value for name, value in row.items() if name != "prompt" or not is_deleted})


_ROWS = "select r from {} r"
