"""The way between the server and PostgreSQL: a loopback port where connections are cut, stalled and refused."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from tests.standins.listening import listening

Point = Literal["request", "answer"]

_READY = b"Z\0\0\0\5I"  # ReadyForQuery, idle: the end of an answer, and what it answers has been committed
# Those that record and settle. Sweeps and workers ask by themselves, and would spring an ambush that waits for a call.
_PREPARES_LEDGER = re.compile(
    rb"P....([^\0]*)\0[^\0]*(?:insert into generations|update generations g set status = case when i\.error)", re.DOTALL
)
_BINDS = re.compile(rb"B....[^\0]*\0([^\0]*)\0", re.DOTALL)
_CHUNK = 65_536


@dataclass
class Ambush:
    """Lies in wait for a ledger statement, and keeps its request from PostgreSQL or its answer from the client.
    `passing` is how many others pass before it.

    When it has `sprung`, a kept request has not reached PostgreSQL, and behind a kept answer the transaction is
    committed. It holds the connection until it is told to `cut` it.
    """

    point: Point
    passing: int = 0
    sprung: asyncio.Event = field(default_factory=asyncio.Event)
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    client_port: int = 0

    async def spring(self, *, within_seconds: float = 60) -> None:
        """Waits until a statement is held, and cuts its connection."""
        async with asyncio.timeout(within_seconds):
            await self.sprung.wait()
        self.cut.set()

    async def hold(self) -> None:
        self.sprung.set()
        await self.cut.wait()
        raise ConnectionAbortedError


@dataclass(eq=False)
class _Connection:
    """One client's way to PostgreSQL and back."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    ledger: set[bytes] = field(default_factory=set)  # the names of its prepared ledger statements
    ambush: Ambush | None = None

    def runs_ledger_statement(self, request: bytes) -> bool:
        """Whether this request executes a statement that records or settles. To be asked about every request.

        The driver sends nothing ahead: what is read after an answer begins with a message.
        """
        self.ledger.update(_PREPARES_LEDGER.findall(request))
        bound = _BINDS.match(request)
        return bound is not None and bound[1] in self.ledger

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Leads whoever connects to `port` on to the socket that `target` names at that moment."""

    def __init__(self, target: Callable[[], str]) -> None:
        self.port = 0
        self._target = target
        self._refusing = False
        self._flowing = asyncio.Event()
        self._ambush: Ambush | None = None
        self._connections: set[_Connection] = set()
        self.open()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with listening(self._lead) as self.port:
            yield

    def open(self) -> None:
        """Lets everything pass, which is how it begins."""
        self._refusing = False
        self._flowing.set()

    def refuse(self) -> None:
        """Cuts every connection, and every new one as soon as it is made."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        """Takes connections and lets no byte pass, until it is opened."""
        self._flowing.clear()

    def cut(self) -> None:
        """Cuts every connection; new ones pass."""
        for connection in tuple(self._connections):
            connection.abort()

    def ambush(self, point: Point, *, passing: int = 0) -> Ambush:
        """For the next ledger statement, or for the one behind so many of them that pass."""
        self._ambush = Ambush(point, passing)
        return self._ambush

    def _sprung(self) -> Ambush | None:
        """The ambush that the ledger statement at hand falls into."""
        ambush = self._ambush
        if ambush is not None and ambush.passing:
            ambush.passing -= 1
            return None
        self._ambush = None
        return ambush

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flowing.wait()
            if self._refusing:
                return
            answers, server = await asyncio.open_unix_connection(self._target())
        except OSError:
            return  # there is nobody behind it now
        else:
            connection = _Connection(writer, server)
            self._connections.add(connection)
            try:
                await self._relay(reader, answers, connection)
            finally:
                self._connections.discard(connection)
                connection.abort()
        finally:
            writer.transport.abort()

    async def _relay(
        self, requests: asyncio.StreamReader, answers: asyncio.StreamReader, connection: _Connection
    ) -> None:
        ways = [
            asyncio.create_task(self._forward(requests, connection)),
            asyncio.create_task(self._return(answers, connection)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forward(self, requests: asyncio.StreamReader, connection: _Connection) -> None:
        with suppress(ConnectionError):
            while data := await requests.read(_CHUNK):
                await self._flowing.wait()
                if connection.runs_ledger_statement(data) and (ambush := self._sprung()) is not None:
                    connection.ambush = ambush
                    connection.ambush.client_port = connection.client.get_extra_info("peername")[1]
                    if connection.ambush.point == "request":
                        await connection.ambush.hold()
                connection.server.write(data)
                await connection.server.drain()

    async def _return(self, answers: asyncio.StreamReader, connection: _Connection) -> None:
        tail = b""
        with suppress(ConnectionError):
            while data := await answers.read(_CHUNK):
                await self._flowing.wait()
                tail = (tail + data)[-len(_READY) :]
                if connection.ambush is None:
                    connection.client.write(data)
                    await connection.client.drain()
                elif tail == _READY:
                    await connection.ambush.hold()
