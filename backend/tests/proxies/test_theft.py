"""Behind a proxy that reuses its connections to the server, no client is answered with what belongs to another."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from app.core.settings import Settings
from app.web.fast_response import FastResponse
from tests.harness import PASSWORD, PATIENCE_SECONDS, Account, running, sign_up
from tests.proxies.programs import found, proxy
from tests.raw_http import connected, head, post_of, send_raw
from tests.web.test_framing import BROKEN, ENDED, NEXT, REFUSED, STOLEN, TAKEN, heads_apart
from uvicorn._types import ASGISendEvent

DELAYS_SECONDS = [0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005] * 6
"""Between a head and its body: the server has to have answered the head neither too early nor too late."""
UPGRADES = {
    "any": ["Connection: Upgrade", "Upgrade: x"],
    "h2c": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"],
    "websocket": ["Connection: Upgrade", "Upgrade: websocket"],
}
FRAMINGS = {**{case: framing for case, (framing, _) in {**TAKEN, **ENDED, **BROKEN}.items()}, **REFUSED}


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


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Event]:
    """While it is not set, no request for /a is answered: what is sent behind its head arrives before its answer."""
    event, send = asyncio.Event(), FastResponse.send

    async def send_later(response: FastResponse, message: ASGISendEvent) -> None:
        if response.scope["path"] == "/a":
            await event.wait()
        await send(response, message)

    monkeypatch.setattr(FastResponse, "send", send_later)
    yield event
    event.set()


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


def _around(hidden: bytes, framing: bytes) -> bytes:
    """The same framing with this request in place of STOLEN, or behind it if nothing is hidden there."""
    before, now = len(STOLEN), len(hidden)
    in_place_of = {STOLEN: hidden}
    in_place_of |= {b"%d" % (before + more): b"%d" % (now + more) for more in (0, len("{}"))}
    in_place_of |= {b"%x" % before: b"%x" % now}
    pattern = b"|".join(map(re.escape, in_place_of))
    whole = framing if STOLEN in framing else framing + STOLEN
    return re.sub(pattern, lambda found: in_place_of[found[0]], whole)


async def _check_own_answers(client: httpx2.AsyncClient, accounts: Sequence[Account], *, after: str) -> None:
    """All of them ask who they are at once, each on a connection of its own."""
    asked = [head("GET", "/v1/auth/me", each.headers.items()) for each in accounts]
    answers = await asyncio.gather(*(send_raw(client, request) for request in asked))
    for account, answer in zip(accounts, answers, strict=True):
        assert answer.status_code == 200, (after, answer.text)
        assert answer.json().get("id") == account.id, (after, answer.text)


async def test_a_request_in_any_framing_is_answered_to_its_sender_or_not_at_all(
    behind: str, server: httpx2.AsyncClient, let_go: asyncio.Event
) -> None:
    """The proxy may take what is hidden for a request of the thief's. Then its answer is the thief's too."""
    thief, victim = await sign_up(server), await sign_up(server)
    async with asyncio.timeout(PATIENCE_SECONDS), httpx2.AsyncClient(base_url=behind) as client:
        for case, framing in FRAMINGS.items():
            body, received = json.dumps({"name": case, "environment": "live"}).encode(), b""
            pieces = heads_apart(_around(post_of("/v1/keys", body, thief.headers.items()), framing))
            let_go.clear()
            async with connected(client) as (reader, writer):
                for piece in pieces:
                    with suppress(ConnectionError):  # the proxy may have ended it
                        writer.write(piece)
                        await writer.drain()
                    await _check_own_answers(client, [victim, thief], after=case)
                let_go.set()
                await _check_own_answers(client, [victim, thief], after=case)
                with suppress(ConnectionError):
                    writer.write(NEXT)
                    while data := await reader.read(65536):
                        received += data
            await _check_own_answers(client, [victim, thief], after=case)
            assert victim.id.encode() not in received, case
