"""A proxy that takes CONNECT, and a server that takes TLS off: both pass bytes on to ports of this machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ssl import SSLContext

from tests.standins.listening import listening


@dataclass
class Tunnel:
    """Every host that it is asked for is the server on `port`, whatever DNS says. It may want a credential."""

    port: int
    credential: str | None = None
    url: str = ""
    connected: list[str] = field(default_factory=list)
    """The hosts that were asked for."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        self.connected.append(target)
        if method != "CONNECT" or (self.credential and f"Basic {self.credential}\r\n" not in head):
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _pass_on(reader, writer, self.port)


@asynccontextmanager
async def tunnel(url: str, *, credential: str | None = None) -> AsyncIterator[Tunnel]:
    """A proxy in front of the server with this URL."""
    proxy = Tunnel(int(url.rpartition(":")[2]), credential)
    async with listening(proxy.serve) as port:
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy


@asynccontextmanager
async def with_tls(url: str, context: SSLContext) -> AsyncIterator[str]:
    """The URL of a server that speaks TLS in front of the one with this URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _pass_on(reader, writer, int(url.rpartition(":")[2]))

    async with listening(serve, tls=context) as port:
        yield f"https://127.0.0.1:{port}"


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    directions = [
        asyncio.create_task(_copy(reader, inner_writer)),
        asyncio.create_task(_copy(inner_reader, writer)),
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        inner_writer.close()
        for direction in directions:
            direction.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
