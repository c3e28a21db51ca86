"""Proxies to a database that can be closed or swallow everything, and servers that refuse every login."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.engine import make_url
from tests.standins.listening import listening


class Way:
    """A loopback port that forwards to the database while it is open, and refuses connections otherwise."""

    def __init__(self, database_url: str) -> None:
        self._to = make_url(database_url)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port: int = listener.getsockname()[1]
        way = self._to.set(host="127.0.0.1", port=self._port, query={"ssl": "disable"})
        self.url = way.render_as_string(hide_password=False)
        self._is_passable = asyncio.Event()
        self._is_passable.set()

    def black_hole(self) -> None:
        """From now on no byte arrives, on connections that are open and on those that will be made. These stay open."""
        self._is_passable.clear()
        self._is_passable = asyncio.Event()  # what was made before waits for the other one, for good

    def let_through(self) -> None:
        """Connections that are made from now on reach the database. Those from before stay dead."""
        self._is_passable = asyncio.Event()
        self._is_passable.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Opens the port. At the end its connections are closed, and new ones are refused."""
        async with listening(self._lead, port=self._port):
            yield

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, begun: bytes = b"") -> None:
        """`begun` is what was read before."""
        passable = self._is_passable
        await passable.wait()
        folder, port = self._to.query.get("host"), self._to.port or 5432
        if folder:
            there = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        else:
            there = await asyncio.open_connection(self._to.host, port)
        there[1].write(begun)
        async with asyncio.TaskGroup() as both:
            both.create_task(_pour(reader, there[1], passable))
            both.create_task(_pour(there[0], writer, passable))


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passable: asyncio.Event) -> None:
    with suppress(ConnectionError):
        try:
            while data := await reader.read(65_536):
                await passable.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def refusing(sqlstate: str) -> AsyncIterator[str]:
    """The URL of a server that answers every login with this error, in PostgreSQL's protocol."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(length - 4)
        writer.write(refusal(sqlstate))
        await writer.drain()

    async with listening(refuse) as port:
        yield f"postgresql+asyncpg://somebody@127.0.0.1:{port}/somewhere?ssl=disable"


def refusal(sqlstate: str) -> bytes:
    """The message of a server that ends a connection with this error."""
    fields = b"SFATAL\0VFATAL\0C%b\0Mnot now\0\0" % sqlstate.encode()
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
