"""What the tests listen with loses no connection when it ends."""

import asyncio
import gc
import socket
from contextlib import suppress

import pytest
from app.core.settings import Settings
from tests import harness
from tests.standins.listening import listening

_TURNS = 6
"""Of the event loop, in which a connection is accepted, made and spoken to."""

turns_before = pytest.mark.parametrize("turns", range(_TURNS))


@turns_before
async def test_who_connects_before_a_stand_in_ends_is_disconnected(turns: int) -> None:
    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(wait) as port:
        client = await _connected(port, turns)
    await _check_disconnected(client)


@turns_before
async def test_who_connects_before_an_application_ends_is_disconnected(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    clients: list[socket.socket] = []

    class Server(harness.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            assert sockets
            clients.append(await _connected(sockets[0].getsockname()[1], turns))
            await super().shutdown(sockets)

    monkeypatch.setattr(harness, "Server", Server)
    async with harness.running(settings) as application:
        await application.get("/health")
    await _check_disconnected(*clients)


async def test_a_mistake_of_a_stand_in_is_not_lost() -> None:
    async def mistake(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        raise LookupError("of the stand-in")

    async def connect() -> None:
        async with listening(mistake) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()

    with pytest.raises(LookupError, match="of the stand-in"):
        await connect()


async def _connected(port: int, turns: int) -> socket.socket:
    """A connection that was asked for so many turns of the event loop ago."""
    client = socket.create_connection(("127.0.0.1", port))
    await _pass(turns)
    return client


async def _check_disconnected(client: socket.socket) -> None:
    await _pass(_TURNS)
    gc.collect()  # which ends lost connections with a warning, and a warning is an error
    client.settimeout(0)
    with client, suppress(ConnectionResetError):
        async with asyncio.timeout(harness.PATIENCE_SECONDS):
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


async def _pass(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
