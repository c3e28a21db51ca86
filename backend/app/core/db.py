"""The connections to PostgreSQL: the pool, the ledger's own, and what a database error means to a caller."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

import asyncpg
from asyncpg.exceptions import InternalClientError
from sqlalchemy import event
from sqlalchemy.engine import Connection as SyncConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from app.core.database_connection import Connection, ConnectionOptions, connect
from app.core.database_url import parse_database_url

_SERVER_SETTINGS = {
    "timezone": "UTC",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "4s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
}
_POOL_WAIT_SECONDS = 3
_PING_SECONDS = 1
_PING, _PONG = "select 1 where not pg_is_in_recovery()", "SELECT 1"  # the command's status has the number of rows
_URL = "postgresql+asyncpg://"  # the dialect; `connect` knows where the server is


def create_engine(
    url: str,
    *,
    pool_size: int,
    is_shared: bool = False,
    use_seconds_max: float = 10,
    on_error: Callable[[BaseException], None] = lambda _error: None,
) -> AsyncEngine:
    """An engine with a deadline on every wait, whose errors hold no statement parameters. It connects at first use.

    A connection is asked for a sign of life before it is used again, and dropped after `use_seconds_max` in one use.
    Where one gives none, or leads to a standby now, all that were made before it are made anew. `is_shared` is for a
    pooler in transaction mode. `on_error` is called with each error of a statement.
    """
    parameters = parse_database_url(url)
    options = ConnectionOptions(settings=_SERVER_SETTINGS, is_shared=is_shared)
    engine = create_async_engine(
        _URL,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_SECONDS,
        isolation_level="READ COMMITTED" if is_shared else None,
        hide_parameters=True,
        connect_args={"async_creator_fn": lambda: connect(parameters, options)},
    )
    event.listen(engine.sync_engine, "connect", _mark_as_new)
    event.listen(engine.sync_engine, "checkout", partial(_begin_use, use_seconds_max))
    event.listen(engine.sync_engine, "checkin", _end_use)
    event.listen(engine.sync_engine, "handle_error", lambda context: on_error(context.original_exception))
    if is_shared:
        event.listen(engine.sync_engine, "begin", _set_for_transaction)
    return engine


def create_engine_for_migrations(url: str) -> AsyncEngine:
    """An engine without a pool, whose statements may take as long as they need."""
    parameters, options = parse_database_url(url), ConnectionOptions(settings={"timezone": "UTC"}, answer_seconds=None)
    arguments = {"async_creator_fn": lambda: connect(parameters, options)}
    return create_async_engine(_URL, poolclass=NullPool, connect_args=arguments)


async def connect_for_writing(url: str) -> Connection:
    """A connection outside the pool, for statements whose commit decides what a client is answered.

    Durability and isolation rest on settings that are set here and read back, and not left to the server's defaults. A
    statement whose connection is lost ends.
    """
    settings = {
        **_SERVER_SETTINGS,
        "statement_timeout": "3s",
        "lock_timeout": "1s",
        "client_connection_check_interval": "500ms",
        # PostgreSQL keeps a plan that it made while the tables were small, until it analyses them: it must use indexes.
        "enable_seqscan": "off",
        # Else taking jobs is planned anew each time, which takes as long as carrying it out.
        "plan_cache_mode": "force_generic_plan",
        # PostgreSQL 18 crashes where a statement has waited for a row and then looks up a partition (decision 55).
        "enable_partition_pruning": "off",
    }
    return await connect(parse_database_url(url), ConnectionOptions(settings=settings, is_verified=True))


def _mark_as_new(_adapted: object, record: Any) -> None:
    record.info["is_new"] = True


def _begin_use(seconds_max: float, adapted: Any, record: Any, _proxy: object) -> None:
    async def ping(connection: asyncpg.Connection) -> None:
        if await connection.execute(_PING, timeout=_PING_SECONDS) != _PONG:
            raise ConnectionAbortedError

    if not record.info.pop("is_new", False):
        try:
            adapted.run_async(ping)
        except Exception as error:  # a driver raises many kinds here, and each means the same
            raise InvalidatePoolError from error
    record.info["deadline"] = asyncio.get_running_loop().call_later(seconds_max, adapted.driver_connection.terminate)


def _end_use(_adapted: object, record: Any) -> None:
    deadline = record.info.pop("deadline", None)
    if deadline is not None:
        deadline.cancel()


def _set_for_transaction(connection: SyncConnection) -> None:
    columns = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _SERVER_SETTINGS.items())
    connection.exec_driver_sql(f"select {columns}")


DATABASE_ERRORS = SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, InternalClientError, OSError
"""What is raised by SQLAlchemy, by the driver, and by a network that fails. (A timeout is an OSError.)"""

Connect = Callable[[], Awaitable[asyncpg.Connection]]
"""Makes a connection outside the pool, as `connect_for_writing` does."""

SessionMaker = async_sessionmaker[AsyncSession]
"""Opens short transactions, for work that does something slow between them."""

DatabaseErrorKind = Literal["unavailable", "data"]
"""`unavailable`: the same statement may succeed later. `data`: PostgreSQL cannot store a value, which the validation of
the request should have refused.
"""

_KIND_BY_CLASS: dict[str, DatabaseErrorKind] = {
    "08": "unavailable",  # connection
    "22": "data",
    "25": "unavailable",  # read-only after a failover, or a transaction that was idle for too long
    "28": "unavailable",  # the server no longer takes our credentials
    "3D": "unavailable",  # the database does not exist, perhaps while it is restored
    "3F": "unavailable",  # nor does the schema
    "40": "unavailable",  # deadlock, serialisation failure
    "53": "unavailable",  # no memory, disk full, too many connections
    "55": "unavailable",  # a lock was not free in time
    "57": "unavailable",  # cancelled, shutting down, starting up
    "58": "unavailable",  # an error of the operating system
}
SCHEMA_GONE = {"42P01", "42703", "42883", "42501"}
"""The sqlstates of a missing table, column and function, and of a missing right: all were there when the server
started. Somebody has brought the schema back to an earlier version, for example.
"""


def classify_database_error(exception: Exception) -> DatabaseErrorKind | None:
    """What an exception of SQLAlchemy or asyncpg means to a caller; None for any other exception, and for a defect such
    as a wrong statement.
    """
    cause = getattr(exception, "orig", None) if isinstance(exception, DBAPIError) else exception
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        return "unavailable" if sqlstate in SCHEMA_GONE else _KIND_BY_CLASS.get(str(sqlstate)[:2])
    if isinstance(exception, DBAPIError | PoolTimeoutError | asyncpg.InterfaceError | InternalClientError | OSError):
        return "unavailable"  # the server was not reached, or the connection was lost
    return None
