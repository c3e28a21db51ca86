"""The connection to PostgreSQL: the engine, the two forms of a transaction, and what its troubles mean."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

import asyncpg
from fastapi import Depends, Request
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
    """An engine whose every wait is bounded and whose errors hold no parameters. Opens nothing until it is used."""
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
    """A connection outside the pool, for statements whose commit is somebody's answer.

    What the promises rest on is set here and not left to the server's defaults; a statement whose client is gone ends.
    """
    parsed = make_url(url)
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    settings = {
        **_SERVER_SETTINGS,
        "statement_timeout": "3s",
        "lock_timeout": "1s",
        "client_connection_check_interval": "500ms",
        # A plan that was made while the tables were small is used until they are analysed: it must go by their indexes.
        "enable_seqscan": "off",
    }
    return await asyncpg.connect(**{**options, "timeout": _CONNECT_SECONDS, "server_settings": settings})


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    sessions: async_sessionmaker[AsyncSession] = request.app.state.sessions
    async with sessions.begin() as session:
        yield session


# scope="function": by default the exit of a dependency runs after the answer has left, and a commit that fails there
# would have been told as a success.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
"""One transaction around the route, committed before the answer leaves."""

SessionMaker = async_sessionmaker[AsyncSession]
"""For short transactions around something slow."""


def trouble(exception: Exception) -> Literal["unavailable", "data"] | None:
    """What an exception of the database layer means to a caller: try again, or the input should have been refused.

    None for what is neither, such as a statement of ours that is wrong.
    """
    cause = getattr(exception, "orig", None) if isinstance(exception, DBAPIError) else exception
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        return _MEANING.get(str(sqlstate)[:2])
    if isinstance(exception, DBAPIError | PoolTimeoutError | asyncpg.InterfaceError | OSError | TimeoutError):
        return "unavailable"  # never reached, or lost on the way
    return None


_MEANING: dict[str, Literal["unavailable", "data"]] = {
    "08": "unavailable",  # connection
    "22": "data",
    "25": "unavailable",  # read-only after a failover, or a transaction that was idle for too long
    "28": "unavailable",  # our credentials are not good any more
    "3D": "unavailable",  # the database is gone, perhaps to be restored
    "40": "unavailable",  # deadlock, serialisation failure
    "53": "unavailable",  # no memory, disk full, too many connections
    "55": "unavailable",  # lock not to be had in time
    "57": "unavailable",  # cancelled, shutting down, starting up
    "58": "unavailable",  # the system below it
}
