"""Runs migrations: for `nanobanana migrate`, and for `alembic` called in backend/ with DATABASE_URL set."""

import asyncio
import time

from alembic import context
from sqlalchemy import Connection, text

from app.core.db import create_engine_for_migrations
from app.core.settings_loading import load_settings
from app.models import Base

_ADVISORY_LOCK = 6_077_313_990_148_352_612  # any number that nobody else locks
_POLL_SECONDS = 0.2


def _database_url() -> str:
    given: str | None = context.config.attributes.get("database_url")
    if given:
        return given
    settings = load_settings()
    configured = settings.database_direct_url or settings.database_url
    if configured is None:
        raise SystemExit("Set DATABASE_URL, such as postgresql+asyncpg://localhost/nanobanana")
    return configured.get_secret_value()


def _migrate(connection: Connection) -> None:
    _wait_for_turn(connection)
    # A migration that cannot have its lock fails instead of queueing every query of the service behind it.
    connection.execute(text("set lock_timeout = '5s'"))
    connection.execute(text("set statement_timeout = 0"))  # whatever the database's default is
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _wait_for_turn(connection: Connection) -> None:
    """Takes the lock of migrations for as long as the connection lives: the second of two waits here, and then finds
    nothing left to do. It asks again and again, since `create index concurrently` would wait for the transaction of a
    connection that waits for a lock.
    """
    ask = text("select pg_try_advisory_lock(:number)")
    while not connection.scalar(ask, {"number": _ADVISORY_LOCK}):
        connection.commit()
        time.sleep(_POLL_SECONDS)


async def _run() -> None:
    engine = create_engine_for_migrations(_database_url())
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(_run())
