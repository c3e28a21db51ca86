"""What the running server promises: connections that last, and time to end when it is told to stop."""

import asyncio

import httpx2
import pytest
from app.core.settings import Settings
from app.server import grace_seconds
from tests.raw_http import connected, head, read_answer

_CLIENTS_LET_GO_SECONDS = 5  # of an idle connection: httpx and the SDKs that stand on it


async def test_the_client_is_the_one_who_ends_an_idle_connection(client: httpx2.AsyncClient) -> None:
    """Were it the server, a request sent at that moment would meet a closed connection."""
    async with connected(client) as (reader, writer):
        for pause in (0, _CLIENTS_LET_GO_SECONDS + 0.5):
            await asyncio.sleep(pause)
            writer.write(head("GET", "/health"))
            assert (await read_answer(reader)).status_code == 200


@pytest.mark.parametrize("deadline_seconds", [1, 60, 600])
def test_whatever_was_accepted_has_the_time_to_end(settings: Settings, deadline_seconds: float) -> None:
    """A body may take ten seconds to come, and a request is recorded twice: when it is admitted and when it ends."""
    record_seconds = 5
    drawn = settings.model_copy(
        update={
            "image_provider": "gemini",
            "generation_deadline_seconds": deadline_seconds,
            "record_deadline_seconds": record_seconds,
        }
    )
    assert grace_seconds(drawn) > 10 + deadline_seconds + 2 * record_seconds
    assert grace_seconds(settings) == 30
