"""Refusals under overload: the bytes of the application's own error, a time to call again, and no reading before it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from app.core.errors import Overloaded
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.web.overload import RETRY_SECONDS_MAX, RETURNS_PER_SECOND, OverloadGuard, next_return
from app.web.protocol import HttpProtocol
from tests.conftest import Start
from tests.harness import BEYOND_PATIENCE_SECONDS, PATIENCE_SECONDS, Account, as_seen, running
from tests.in_memory import Seen, without_collector
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, chunk, connected, head, read_answer, send_raw
from tests.web.held_logins import LOGIN, HeldLogins

LOOPBACK = "127.0.0.0/8"
FAR = str(BEYOND_PATIENCE_SECONDS)
HEALTH, NOTHING = head("GET", "/health"), head("GET", "/v1/nothing")
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> HeldLogins:
    """What holds the only slot."""
    return HeldLogins(monkeypatch)


@pytest.fixture
def long_quiet_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first refused client is asked to wait a second, all others far longer than a test takes."""
    monkeypatch.setattr("app.web.overload.RETURNS_PER_SECOND", 1 / BEYOND_PATIENCE_SECONDS)
    for module in ("overload", "prepared_refusals"):
        monkeypatch.setattr(f"app.web.{module}.RETRY_SECONDS_MAX", BEYOND_PATIENCE_SECONDS)


@asynccontextmanager
async def _full(client: httpx2.AsyncClient, held: HeldLogins) -> AsyncIterator[None]:
    """The only slot is taken until the block ends."""
    held.let_go.clear()
    async with connected(client) as (reader, writer):
        writer.write(LOGIN)
        await held.begun.acquire()
        yield
        held.let_go.set()
        assert (await read_answer(reader)).status_code == 401


async def _ask(ends: Ends, request: bytes) -> httpx2.Response:
    reader, writer = ends
    writer.write(request)
    return await read_answer(reader)


async def _refused(ends: Ends, retry_after: str = "1") -> httpx2.Response:
    answer = await _ask(ends, NOTHING)
    check_problem(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == retry_after
    return answer


async def _ended(ends: Ends) -> bool:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await ends[0].read() == b""


@pytest.mark.parametrize("cors_origins", ["", "https://app.example"])
async def test_a_refusal_has_the_bytes_of_the_applications_own_error(
    start: Start, account: Account, monkeypatch: pytest.MonkeyPatch, held: HeldLogins, cors_origins: str
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise Overloaded

    monkeypatch.setattr("app.features.keys.service.find_all", refuse)
    client = await start(requests_max=1, cors_origins=cors_origins)
    order = head("GET", "/v1/keys", [*account.headers.items(), ("Origin", "https://app.example")])
    async with connected(client) as ends:
        raised = await _ask(ends, order)
    async with _full(client, held), connected(client) as ends:
        refused = await _ask(ends, order)
    check_problem(refused, 503, "overloaded")
    assert as_seen(refused) == as_seen(raised)
    assert refused.headers.get("access-control-allow-origin", "") == cors_origins
    assert list(refused.headers) == list(raised.headers)
    assert refused.headers["x-request-id"] != raised.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "media_type", "text"),
    [
        ("//v1/images//generations", "application/json", '"code":"overloaded"}}'),
        ("/keys", "text/html; charset=utf-8", "The service has too much to do; try again. Try again in 1 second."),
    ],
)
async def test_a_path_with_an_error_format_of_its_own_is_refused_in_it(
    start: Start, path: str, media_type: str, text: str, held: HeldLogins
) -> None:
    client = await start(requests_max=1)
    async with _full(client, held):
        answer = await send_raw(client, head("GET", path))
    assert (answer.status_code, answer.headers["content-type"]) == (503, media_type)
    assert answer.headers["retry-after"] == "1"
    assert text in answer.text
    assert ("content-security-policy" in answer.headers) == (path == "/keys")
    assert (answer.headers["x-request-id"] in answer.text) == (path == "/keys")


async def test_refused_clients_are_asked_to_call_again_one_after_another_and_none_to_wait_for_long(
    start: Start, monkeypatch: pytest.MonkeyPatch, held: HeldLogins
) -> None:
    monkeypatch.setattr("app.web.overload.RETURNS_PER_SECOND", 1)
    monkeypatch.setattr("app.web.overload.RETRY_SECONDS_MAX", 5)
    client = await start(requests_max=1)
    async with _full(client, held), AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(client)) for _ in range(10)]
        seconds = [int((await _ask(each, NOTHING)).headers["retry-after"]) for each in connections]
    assert seconds == sorted(seconds)
    assert set(seconds) <= {1, 2, 3, 4, 5}
    assert (seconds[0], seconds[-1]) == (1, 5)


def _returns(refusals: Iterable[float]) -> list[float]:
    """When clients that were refused at these times may call again."""
    returns = [0.0]
    for now in refusals:
        returns.append(next_return(returns[-1], now=now))
    return returns[1:]


def test_a_second_has_no_more_returns_than_allowed_however_many_clients_are_refused() -> None:
    clients = RETURNS_PER_SECOND * RETRY_SECONDS_MAX
    returns = _returns([1000.0] * clients)
    assert returns[0] == 1001
    assert max(Counter(map(int, returns)).values()) <= RETURNS_PER_SECOND + 1
    assert max(_returns([1000.0] * 2 * clients)) == 1000 + RETRY_SECONDS_MAX
    assert _returns([1000.0, 1002.0, 1004.0]) == [1001, 1003, 1005]


async def test_a_request_sent_in_the_quiet_time_is_answered_after_it(start: Start, held: HeldLogins) -> None:
    client = await start(requests_max=1)
    async with connected(client) as ends:
        async with _full(client, held):
            await _refused(ends)
        assert (await _ask(ends, HEALTH)).status_code == 200
        assert (await _ask(ends, NOTHING)).status_code == 404


@pytest.mark.usefixtures("long_quiet_times")
async def test_a_client_that_does_not_wait_is_not_read_while_others_are_answered(
    start: Start, held: HeldLogins
) -> None:
    client = await start(requests_max=1)
    async with connected(client) as first, connected(client) as ends:
        async with _full(client, held):
            await _refused(first)
            await _refused(ends, FAR)
        early = asyncio.ensure_future(_ask(ends, HEALTH))
        for _ in range(50):
            assert (await client.get("/nothing")).status_code == 404
        assert not early.done()
        early.cancel()


@pytest.mark.usefixtures("long_quiet_times")
async def test_a_trusted_proxy_is_read_at_once_since_it_carries_many_clients(start: Start, held: HeldLogins) -> None:
    client = await start(requests_max=1, trusted_proxies=LOOPBACK)
    async with connected(client) as first, connected(client) as ends:
        async with _full(client, held):
            await _refused(first)
            await _refused(ends, FAR)
            assert (await _ask(ends, HEALTH)).status_code == 200
            await _refused(ends, FAR)
        assert (await _ask(ends, NOTHING)).status_code == 404


def test_a_peer_without_an_address_counts_as_a_proxy() -> None:
    guard = OverloadGuard(1, Metrics(), proxies=())
    assert guard.is_proxy(None)
    assert not guard.is_proxy("127.0.0.1")


@pytest.mark.usefixtures("long_quiet_times")
async def test_the_server_stops_without_waiting_for_refused_clients(settings: Settings, held: HeldLogins) -> None:
    async with AsyncExitStack() as stack:
        busy = settings.model_copy(update={"requests_max": 1})
        async with asyncio.timeout(PATIENCE_SECONDS), running(busy) as client:
            connections = [await stack.enter_async_context(connected(client)) for _ in range(3)]
            async with _full(client, held):
                for ends, retry_after in zip(connections, ["1", FAR, FAR], strict=True):
                    await _refused(ends, retry_after)
            connections[1][1].write(NOTHING)
            assert (await client.get("/nothing")).status_code == 404
        for ends in connections:
            assert await _ended(ends)


@pytest.mark.usefixtures("long_quiet_times")
async def test_a_refused_connection_leaves_memory_when_its_client_hangs_up(
    start: Start, monkeypatch: pytest.MonkeyPatch, held: HeldLogins
) -> None:
    """By reference counting: under overload, connections would pile up until the next garbage collection."""
    connections = Seen(monkeypatch, HttpProtocol, "connection_made")
    client = await start(requests_max=1)
    assert (await client.get("/health")).status_code == 200
    [kept] = connections.in_memory
    with without_collector():
        async with _full(client, held), AsyncExitStack() as stack:
            for number in range(10):
                ends = await stack.enter_async_context(connected(client))
                await _refused(ends, FAR if number else "1")
        await connections.assert_left(kept=[kept])


@pytest.mark.parametrize("proxies", [LOOPBACK, ""])
async def test_the_body_of_a_refused_request_is_not_read_as_a_request(
    start: Start, proxies: str, held: HeldLogins
) -> None:
    client = await start(requests_max=1, trusted_proxies=proxies)
    content = b" " * 30_000 + HEALTH
    counted = head("POST", "/v1/auth/login", [JSON_TYPE, ("Content-Length", str(len(content)))]), content
    chunked = head("POST", "/v1/auth/login", [JSON_TYPE, ("Transfer-Encoding", "chunked")]), chunk(content) + chunk(b"")
    for begun, body in (counted, chunked):
        async with _full(client, held), connected(client) as ends:
            check_problem(await _ask(ends, begun), 503, "overloaded")
            for part in (body[:20_000], body[20_000:]):
                ends[1].write(part)
                assert (await client.get("/health")).status_code == 200  # by then the server has read the part
            await _refused(ends)


async def test_a_refused_head_request_gets_headers_without_a_body(start: Start, held: HeldLogins) -> None:
    client = await start(requests_max=1, trusted_proxies=LOOPBACK)
    async with _full(client, held), connected(client) as (reader, writer):
        refused = await _refused((reader, writer))
        writer.write(head("HEAD", "/v1/nothing") + NOTHING)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        assert lines[0] == "http/1.1 503 service unavailable"
        assert f"content-length: {len(refused.content)}" in lines
        check_problem(await read_answer(reader), 503, "overloaded")


@pytest.mark.parametrize(
    "request_",
    [
        head("GET", "/nothing", [("Connection", "close")]),
        b"GET /nothing HTTP/1.0\r\n\r\n",
        head("POST", "/v1/auth/login", [JSON_TYPE, ("Content-Length", "2"), ("Expect", "100-continue")]),
    ],
    ids=["Connection: close", "HTTP/1.0", "Expect: 100-continue"],
)
async def test_a_refused_connection_that_cannot_go_on_is_closed(
    start: Start, request_: bytes, held: HeldLogins
) -> None:
    client = await start(requests_max=1)
    async with _full(client, held), connected(client) as ends:
        answer = await _ask(ends, request_)
        check_problem(answer, 503, "overloaded")
        assert answer.headers["connection"] == "close"
        assert await _ended(ends)


async def test_pipelined_requests_behind_a_refused_one_end_the_connection(start: Start, held: HeldLogins) -> None:
    client = await start(requests_max=1)
    async with _full(client, held), connected(client) as ends:
        check_problem(await _ask(ends, NOTHING * 2000), 503, "overloaded")
        assert await _ended(ends)
    client = await start(requests_max=1, trusted_proxies=LOOPBACK)
    async with _full(client, held), connected(client) as ends:
        assert (await _ask(ends, HEALTH + NOTHING * 2000)).status_code == 200
        answer = await read_answer(ends[0])
        check_problem(answer, 503, "overloaded")
        assert answer.headers["connection"] == "close"
        assert await _ended(ends)


async def test_a_client_that_sends_much_data_in_the_quiet_time_loses_its_connection(
    start: Start, held: HeldLogins
) -> None:
    client = await start(requests_max=1)
    async with _full(client, held), connected(client) as ends:
        await _refused(ends)
        ends[1].write(head("POST", "/v1/auth/login", [("Content-Length", "60000")]) + b" " * 60_000)
        assert await _ended(ends)
