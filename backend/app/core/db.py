"""The connection to PostgreSQL: the engine, transactions, and what a database error means to a caller."""

from typing import Literal

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

_SERVER_SETTINGS = {
    "application_name": "nanobanana",
    "timezone": "UTC",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",
}
_CONNECT_SECONDS = 3
_POOL_WAIT_SECONDS = 3


def create_engine(url: str, *, pool_size: int) -> AsyncEngine:
    """An engine with a timeout on every wait, whose errors hold no statement parameters. It connects at first use."""
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"timeout": _CONNECT_SECONDS, "server_settings": _SERVER_SETTINGS},
    )


async def connect_for_writing(url: str) -> asyncpg.Connection:
    """A connection outside the pool, for statements whose commit decides what a client is answered.

    Durability and isolation rest on settings that are set here and not left to the server's defaults. A statement whose
    connection is lost ends.
    """
    parsed = make_url(url)
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    settings = {
        **_SERVER_SETTINGS,
        "statement_timeout": "3s",
        "lock_timeout": "1s",
        "client_connection_check_interval": "500ms",
        # PostgreSQL keeps a plan that it made while the tables were small, until it analyses them: it must use indexes.
        "enable_seqscan": "off",
    }
    return await asyncpg.connect(**{**options, "timeout": _CONNECT_SECONDS, "server_settings": settings})


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
    "40": "unavailable",  # deadlock, serialisation failure
    "53": "unavailable",  # no memory, disk full, too many connections
    "55": "unavailable",  # a lock was not free in time
    "57": "unavailable",  # cancelled, shutting down, starting up
    "58": "unavailable",  # an error of the operating system
}


def classify_database_error(exception: Exception) -> DatabaseErrorKind | None:
    """What an exception of SQLAlchemy or asyncpg means to a caller; None for any other exception, and for a defect such
    as a wrong statement.
    """
    cause = getattr(exception, "orig", None) if isinstance(exception, DBAPIError) else exception
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        return _KIND_BY_CLASS.get(str(sqlstate)[:2])
    if isinstance(exception, DBAPIError | PoolTimeoutError | asyncpg.InterfaceError | OSError | TimeoutError):
        return "unavailable"  # the server was not reached, or the connection was lost
    return None
