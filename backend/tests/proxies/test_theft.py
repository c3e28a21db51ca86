"""Behind a proxy that reuses its connections to the server, no client is answered with what belongs to another."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from app.core.settings import Settings
from tests.harness import PASSWORD, PATIENCE_SECONDS, Account, running, sign_up
from tests.proxies.programs import found, proxy

DELAYS_SECONDS = [0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005] * 6
"""Between a head and its body: the server has to have answered the head neither too early nor too late."""
UPGRADES = {
    "any": ["Connection: Upgrade", "Upgrade: x"],
    "h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"],
    "websocket": ["Connection: Upgrade", "Upgrade: websocket"],
}


@pytest.fixture(scope="module")
async def server(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    async with running(settings) as client:
        yield client


@pytest.fixture(params=found())
def behind(request: pytest.FixtureRequest, server: httpx2.AsyncClient, tmp_path: Path) -> Iterator[str]:
    """The address of a proxy before the server."""
    assert server.base_url.port is not None
    with proxy(request.param, server=server.base_url.port, folder=tmp_path) as port:
        yield f"http://127.0.0.1:{port}"


async def _attack(port: int, thief: Account, upgrade: list[str], delay_seconds: float) -> None:
    """Sends a request with an upgrade, and then its body, which is a whole login: the proxy has given the connection to
    the next client before that is answered.
    """
    credentials = json.dumps({"email": thief.email, "password": PASSWORD})
    lines = ["POST /v1/auth/login HTTP/1.1", "Host: a", "Content-Type: application/json"]
    hidden = "\r\n".join([*lines, f"Content-Length: {len(credentials)}", "", credentials]).encode()
    slow = ["GET /v1/usage HTTP/1.1", "Host: a", f"Authorization: Bearer {thief.token}"]
    visible = [*slow, *upgrade, f"Content-Length: {len(hidden)}", "", ""]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):
        writer.write("\r\n".join(visible).encode())
        await writer.drain()
        await asyncio.sleep(delay_seconds)
        writer.write(hidden)
        await writer.drain()
        await asyncio.sleep(delay_seconds)
    writer.close()


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
async def test_a_request_hidden_in_a_body_takes_nobodys_answer(
    behind: str, server: httpx2.AsyncClient, upgrade: list[str]
) -> None:
    thief, victim = await sign_up(server), await sign_up(server)
    async with httpx2.AsyncClient(base_url=behind, timeout=PATIENCE_SECONDS) as client:
        for delay_seconds in DELAYS_SECONDS:
            await _attack(client.base_url.port or 80, thief, upgrade, delay_seconds)
            for account in (victim, thief, victim):
                answer = await client.get("/v1/auth/me", headers=account.headers)
                assert (answer.status_code, answer.json().get("id")) == (200, account.id)
