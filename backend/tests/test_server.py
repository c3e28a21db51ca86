"""The running server: idle connections, clients that do not read, and the time that it gives its requests when it
stops.
"""

import asyncio
import socket
from contextlib import suppress

import httpx2
import pytest
from app.core.settings import Settings
from app.server import grace_seconds, listening_socket
from tests.raw_http import connected, head, read_answer

_CLIENTS_LET_GO_SECONDS = 5  # httpx and the SDKs that use it close idle connections after this time


async def test_an_idle_connection_is_closed_by_the_client_first(client: httpx2.AsyncClient) -> None:
    """If the server closed it, a request that is sent at that moment would fail."""
    async with connected(client) as (reader, writer):
        for pause in (0, _CLIENTS_LET_GO_SECONDS + 0.5):
            await asyncio.sleep(pause)
            writer.write(head("GET", "/health"))
            assert (await read_answer(reader)).status_code == 200


def test_the_system_takes_little_of_a_response_that_is_not_read(settings: Settings) -> None:
    with listening_socket(settings.model_copy(update={"port": 0})) as listener, socket.socket() as client:
        listener.listen()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        connection, _ = listener.accept()
        taken = 0
        with connection, suppress(BlockingIOError):
            connection.settimeout(0)
            while True:
                taken += connection.send(bytes(64 * 1024))
    assert 0 < taken < 1024 * 1024


@pytest.mark.parametrize("deadline_seconds", [1, 60, 600])
def test_a_stopping_server_waits_longer_than_any_request_takes(settings: Settings, deadline_seconds: float) -> None:
    """A body may take ten seconds to arrive, and a request is recorded twice: admitted, then settled."""
    record_seconds = 5
    drawn = settings.model_copy(
        update={
            "image_provider": "gemini",
            "generation_deadline_seconds": deadline_seconds,
            "record_deadline_seconds": record_seconds,
        }
    )
    for each in (drawn, drawn.model_copy(update={"image_provider": "stub"})):
        assert grace_seconds(each) > 10 + deadline_seconds + 2 * record_seconds
