"""A bell between processes: whoever waits for a change in the database is woken soon after its commit.

A ring is lost where the connection is: who listens looks by itself too, once a second. It goes over a connection of its
own, and never inside the ledger's statements: PostgreSQL lets transactions that notify commit one after another, so
that 395 instead of 11,401 a second would be recorded.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg

from app.core.cancellation import raise_if_cancelled
from app.core.db import DATABASE_ERRORS, Connect
from app.core.logs import logger

_RING_SECONDS = 0.05
_RECONNECT_SECONDS = 1.0
_CHANNEL = "nanobanana"
_NAMES_MAX = 200
"""Of one message, whose text PostgreSQL bounds at 8,000 bytes."""
_UNRUNG_MAX = 10_000
"""Names that are kept while the connection is away."""

Heard = Callable[[Collection[str]], None]
"""Takes what was rung for: ids of generations, or JOBS."""

JOBS = "jobs"
"""What is rung for when a generation waits for a worker."""


class Bell:
    """Rings for names, at most every 50 ms, and calls those who listen, in every process of the deployment."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._names: dict[str, None] = {}  # in order
        self._rung = asyncio.Event()
        self._listeners: list[Heard] = []

    def ring(self, *names: str) -> None:
        """Rings soon; does not wait, and raises nothing. While very many are still to be rung for, only JOBS is: who
        waits for another looks by itself.
        """
        if len(self._names) < _UNRUNG_MAX or JOBS in names:
            self._names.update(dict.fromkeys(names))
        self._rung.set()

    @property
    def unrung(self) -> Collection[str]:
        """What is still to be rung for."""
        return self._names.keys()

    @contextmanager
    def heard_by(self, listener: Heard) -> Iterator[None]:
        """Inside the `with`, `listener` is called with what any process rings for."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    async def run(self) -> None:
        """Connects, rings and listens, until it is cancelled."""
        while True:
            connection = None
            try:
                connection = await self._connect()
                await connection.execute("set synchronous_commit = off")  # a ring that a crash takes is no loss
                await connection.add_listener(_CHANNEL, self._hear)
                await self._ring_all(connection)
            except (*DATABASE_ERRORS, TimeoutError) as error:
                logger.warning("bell_lost", reason=type(error).__name__)
            finally:
                if connection is not None:
                    with suppress(Exception):
                        connection.terminate()
            raise_if_cancelled()
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _ring_all(self, connection: asyncpg.Connection) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_RECONNECT_SECONDS):
                    await self._rung.wait()
            self._rung.clear()
            if not self._names:
                if connection.is_closed():
                    raise ConnectionResetError
                continue
            names = list(self._names)[:_NAMES_MAX]
            await connection.execute("select pg_notify($1, $2)", _CHANNEL, " ".join(names), timeout=_RECONNECT_SECONDS)
            for each in names:
                del self._names[each]
            if self._names:
                self._rung.set()
            await asyncio.sleep(_RING_SECONDS)

    def _hear(self, _connection: Any, _pid: int, _channel: str, text: object) -> None:
        names = str(text).split()
        for listener in list(self._listeners):
            listener(names)
