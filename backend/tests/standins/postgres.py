"""Hosts that speak PostgreSQL's protocol and are no primary: one that says nothing, and a standby."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.standins.listening import listening

_STANDBY = {
    "server_version": "18.4",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "in_hot_standby": "on",
    "default_transaction_read_only": "off",
}


@asynccontextmanager
async def silent_host(*, answer: bytes = b"") -> AsyncIterator[int]:
    """The loopback port of a host that takes connections, and sends no byte but these: `N` refuses TLS."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read(-1)

    async with listening(say_nothing) as port:
        yield port


@asynccontextmanager
async def standby() -> AsyncIterator[int]:
    """The loopback port of a host that lets everybody in, and says that it can only be read."""

    async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(length - 4)
        writer.write(_message(b"R", bytes(4)) + _parameters(_STANDBY) + _message(b"K", bytes(8)) + _message(b"Z", b"I"))
        await writer.drain()
        await reader.read(-1)

    async with listening(let_in) as port:
        yield port


def _parameters(values: Mapping[str, str]) -> bytes:
    return b"".join(_message(b"S", f"{name}\0{value}\0".encode()) for name, value in values.items())


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body
