"""Runs migrations: for `nanobanana migrate`, and for `alembic` called in backend/ with DATABASE_URL set."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.core.settings import load_settings
from app.models import Base

_ADVISORY_LOCK = 6_077_313_990_148_352_612  # any number that nobody else locks


def _database_url() -> str:
    given: str | None = context.config.attributes.get("database_url")
    if given:
        return given
    configured = load_settings().database_url
    if configured is None:
        raise SystemExit("Set DATABASE_URL, such as postgresql+asyncpg://localhost/nanobanana")
    return configured.get_secret_value()


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        # Whoever comes second waits here, and then finds nothing left to do.
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
        # A migration that cannot have its lock fails instead of queueing every query of the service behind it.
        connection.execute(text("set local lock_timeout = '5s'"))
        context.run_migrations()


async def _run() -> None:
    engine = create_async_engine(_database_url(), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(_run())
