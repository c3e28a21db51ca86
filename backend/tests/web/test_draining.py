"""A process that is to stop: what is sent to it meanwhile is answered, and none connects to what is about to close."""

import asyncio
import socket
import sys
from typing import Any

import httpx2
import pytest
from app.assembly import Externals
from app.core.draining import Draining, count_queued, hold_off
from app.core.settings import Settings
from tests.conftest import Start
from tests.harness import looks, port_is_open, running
from tests.raw_http import connected, head, read_answer


async def test_a_draining_process_ends_each_connection_with_its_response(
    start: Start, externals: dict[str, Any]
) -> None:
    draining = externals["draining"] = Draining()
    client = await start()
    for path, status in (("/health", 200), ("/ready", 200), ("/nothing", 404)):
        draining.has_begun = False
        assert "connection" not in (await client.get(path)).headers
        draining.begin()
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["connection"]) == (status, "close")


async def test_a_server_that_is_to_stop_is_not_ready_and_takes_calls(start: Start, externals: dict[str, Any]) -> None:
    draining = externals["draining"] = Draining()
    client = await start()
    draining.leave()
    refused = await client.get("/ready")
    assert (refused.status_code, refused.json()["detail"]) == (503, "This server is stopping")
    assert (await client.get("/health")).status_code == 200


async def test_a_request_on_an_idle_connection_is_answered_after_the_process_has_stopped_accepting(
    settings: Settings,
) -> None:
    draining = Draining()
    context = running(settings, Externals(draining=draining))
    client = await context.__aenter__()
    async with connected(client) as (reader, writer):
        writer.write(head("GET", "/health"))
        assert (await read_answer(reader)).status_code == 200
        draining.begin()
        stopping = asyncio.create_task(context.__aexit__(None, None, None))
        await _until_closed(client)
        writer.write(head("GET", "/health"))
        assert (await read_answer(reader)).status_code == 200
        assert await reader.read() == b""
    await stopping


async def _until_closed(client: httpx2.AsyncClient) -> None:
    assert client.base_url.port is not None
    for _ in looks():
        if not port_is_open(client.base_url.port):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it accepts")


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux filters what arrives at a socket")
async def test_who_has_connected_is_accepted_and_who_has_not_is_refused_instead_of_reset() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as early, socket.socket() as late:
        for each in (early, late):
            each.settimeout(0)
        await loop.sock_connect(early, listener.getsockname())
        hold_off(listener)
        connecting = asyncio.create_task(loop.sock_connect(late, listener.getsockname()))
        await asyncio.sleep(0)
        assert count_queued(listener) == 1
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getpeername() == early.getsockname()
            early.send(b"a request")
            assert accepted.recv(100) == b"a request"
            assert count_queued(listener) == 0
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                await connecting
