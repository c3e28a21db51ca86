"""Whoever is refused for want of room: told like anybody else, told when to come again, and not heard before that."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from app.core.errors import Overloaded
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.web.overload import RETRY_SECONDS_MAX, RETURNS_PER_SECOND, Door, next_turn
from app.web.protocol import Protocol
from tests.conftest import Start
from tests.harness import BEYOND_PATIENCE_SECONDS, PATIENCE_SECONDS, Account, as_seen, looks, running
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, chunk, connected, head, read_answer

LOOPBACK = "127.0.0.0/8"
FAR = str(BEYOND_PATIENCE_SECONDS)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LOGIN = head("POST", "/v1/auth/login", [JSON_TYPE, ("Content-Length", "2"), ("Expect", "100-continue")])
HEALTH, NOTHING = head("GET", "/health"), head("GET", "/nothing")
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has taken the only place keeps it for as long as a slow machine needs for a test."""
    monkeypatch.setattr("app.web.body.BODY_SECONDS_MAX", BEYOND_PATIENCE_SECONDS)


@pytest.fixture
def far_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first who is refused waits a second, everybody else far longer than a test does."""
    monkeypatch.setattr("app.web.overload.RETURNS_PER_SECOND", 1 / BEYOND_PATIENCE_SECONDS)
    for module in ("overload", "prepared_refusals"):
        monkeypatch.setattr(f"app.web.{module}.RETRY_SECONDS_MAX", BEYOND_PATIENCE_SECONDS)


@asynccontextmanager
async def _full(client: httpx2.AsyncClient) -> AsyncIterator[None]:
    """The only place is taken until the block ends, by somebody whose body is waited for."""
    async with connected(client) as (reader, writer):
        writer.write(LOGIN)
        assert await reader.readexactly(len(CONTINUE)) == CONTINUE
        yield
        writer.write(b"{}")
        assert (await read_answer(reader)).status_code == 422


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


async def test_it_is_answered_to_the_byte_as_the_application_would(
    start: Start, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise Overloaded

    monkeypatch.setattr("app.features.keys.service.create", refuse)
    client = await start(requests_max=1)
    order = head("POST", "/v1/keys", [*account.headers.items(), JSON_TYPE, ("Content-Length", "13")]) + b'{"name": "a"}'
    async with connected(client) as ends:
        told = await _ask(ends, order)
    async with _full(client), connected(client) as ends:
        refused = await _refused(ends)
    assert as_seen(refused) == as_seen(told)
    assert list(refused.headers) == list(told.headers)
    assert refused.headers["x-request-id"] != told.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "media_type", "said"),
    [
        ("/v1/images/generations", "application/json", '"code":"overloaded"}}'),
        ("/keys", "text/html; charset=utf-8", "The service has too much to do; try again. Try again in 1 second."),
    ],
)
async def test_paths_that_speak_otherwise_are_refused_in_their_own_words(
    start: Start, path: str, media_type: str, said: str
) -> None:
    client = await start(requests_max=1)
    async with _full(client):
        answer = await client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (503, media_type)
    assert answer.headers["retry-after"] == "1"
    assert said in answer.text
    assert ("content-security-policy" in answer.headers) == (path == "/keys")
    assert (answer.headers["x-request-id"] in answer.text) == (path == "/keys")


async def test_callers_are_told_to_come_one_after_another_and_none_to_wait_for_long(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.overload.RETURNS_PER_SECOND", 1)
    monkeypatch.setattr("app.web.overload.RETRY_SECONDS_MAX", 5)
    client = await start(requests_max=1)
    async with _full(client), AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(connected(client)) for _ in range(10)]
        told = [int((await _ask(line, NOTHING)).headers["retry-after"]) for line in lines]
    assert told == sorted(told)
    assert set(told) <= {1, 2, 3, 4, 5}
    assert (told[0], told[-1]) == (1, 5)


def _turns(arrivals: Iterable[float]) -> list[float]:
    turns = [0.0]
    for now in arrivals:
        turns.append(next_turn(turns[-1], now=now))
    return turns[1:]


def test_however_many_come_no_more_return_in_a_second_than_may() -> None:
    crowd = RETURNS_PER_SECOND * RETRY_SECONDS_MAX
    turns = _turns([1000.0] * crowd)
    assert turns[0] == 1001
    assert max(Counter(map(int, turns)).values()) <= RETURNS_PER_SECOND + 1
    assert max(_turns([1000.0] * 2 * crowd)) == 1000 + RETRY_SECONDS_MAX
    assert _turns([1000.0, 1002.0, 1004.0]) == [1001, 1003, 1005]


async def test_what_comes_before_the_time_is_answered_after_it(start: Start) -> None:
    client = await start(requests_max=1)
    async with connected(client) as ends:
        async with _full(client):
            await _refused(ends)
            told = asyncio.get_running_loop().time()
        assert (await _ask(ends, HEALTH)).status_code == 200
        assert asyncio.get_running_loop().time() - told > 0.9
        assert (await _ask(ends, NOTHING)).status_code == 404


@pytest.mark.usefixtures("far_turns")
async def test_who_does_not_wait_is_not_heard_while_others_are(start: Start) -> None:
    client = await start(requests_max=1)
    async with connected(client) as first, connected(client) as ends:
        async with _full(client):
            await _refused(first)
            await _refused(ends, FAR)
        early = asyncio.ensure_future(_ask(ends, HEALTH))
        for _ in range(50):
            assert (await client.get("/nothing")).status_code == 404
        assert not early.done()
        early.cancel()


@pytest.mark.usefixtures("far_turns")
async def test_a_trusted_proxy_is_heard_at_once_since_it_speaks_for_many(start: Start) -> None:
    client = await start(requests_max=1, trusted_proxies=LOOPBACK)
    async with connected(client) as first, connected(client) as ends:
        async with _full(client):
            await _refused(first)
            await _refused(ends, FAR)
            assert (await _ask(ends, HEALTH)).status_code == 200
            await _refused(ends, FAR)
        assert (await _ask(ends, NOTHING)).status_code == 404


def test_who_has_no_address_is_a_proxy_on_this_machine() -> None:
    door = Door(1, Metrics(), proxies=())
    assert door.is_proxy(None)
    assert not door.is_proxy("127.0.0.1")


@pytest.mark.usefixtures("far_turns")
async def test_a_stop_waits_for_nobody_who_was_refused(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        busy = settings.model_copy(update={"requests_max": 1})
        async with asyncio.timeout(PATIENCE_SECONDS), running(busy) as client:
            lines = [await stack.enter_async_context(connected(client)) for _ in range(3)]
            async with _full(client):
                for line, retry_after in zip(lines, ["1", FAR, FAR], strict=True):
                    await _refused(line, retry_after)
            lines[1][1].write(NOTHING)
            assert (await client.get("/nothing")).status_code == 404
        for line in lines:
            assert await _ended(line)


@pytest.mark.usefixtures("far_turns")
async def test_nothing_is_left_of_a_refused_caller_who_hangs_up(start: Start) -> None:
    def connections() -> set[Protocol]:
        return {each for each in gc.get_objects() if isinstance(each, Protocol)}

    client = await start(requests_max=1)
    assert (await client.get("/health")).status_code == 200
    gc.collect()
    gc.disable()
    try:
        before = connections()
        async with _full(client), AsyncExitStack() as stack:
            for number in range(10):
                line = await stack.enter_async_context(connected(client))
                await _refused(line, FAR if number else "1")
        for _ in looks():
            if connections() <= before:  # one of an earlier test may go meanwhile
                return
            await asyncio.sleep(0.05)
        raise AssertionError("some are left")
    finally:
        gc.enable()


@pytest.mark.parametrize("proxies", [LOOPBACK, ""])
async def test_the_body_of_a_refused_request_is_no_request(start: Start, proxies: str) -> None:
    client = await start(requests_max=1, trusted_proxies=proxies)
    content = b" " * 30_000 + HEALTH
    counted = head("POST", "/v1/auth/login", [JSON_TYPE, ("Content-Length", str(len(content)))]), content
    chunked = head("POST", "/v1/auth/login", [JSON_TYPE, ("Transfer-Encoding", "chunked")]), chunk(content) + chunk(b"")
    for begun, body in (counted, chunked):
        async with _full(client), connected(client) as ends:
            check_problem(await _ask(ends, begun), 503, "overloaded")
            for part in (body[:20_000], body[20_000:]):
                ends[1].write(part)
                assert (await client.get("/health")).status_code == 200  # meanwhile it has been read
            await _refused(ends)


async def test_a_head_gets_the_headers_alone(start: Start) -> None:
    client = await start(requests_max=1, trusted_proxies=LOOPBACK)
    async with _full(client), connected(client) as (reader, writer):
        refused = await _refused((reader, writer))
        writer.write(head("HEAD", "/nothing") + NOTHING)
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
    ids=["who wants no more", "HTTP/1.0", "who waits for a 100"],
)
async def test_a_connection_that_cannot_go_on_is_closed(start: Start, request_: bytes) -> None:
    client = await start(requests_max=1)
    async with _full(client), connected(client) as ends:
        answer = await _ask(ends, request_)
        check_problem(answer, 503, "overloaded")
        assert answer.headers["connection"] == "close"
        assert await _ended(ends)


async def test_requests_sent_without_waiting_for_answers_are_refused_by_closing(start: Start) -> None:
    client = await start(requests_max=1)
    async with _full(client), connected(client) as ends:
        check_problem(await _ask(ends, NOTHING * 2000), 503, "overloaded")
        assert await _ended(ends)
    client = await start(requests_max=1, trusted_proxies=LOOPBACK)
    async with _full(client), connected(client) as ends:
        assert (await _ask(ends, HEALTH + NOTHING * 2000)).status_code == 200
        answer = await read_answer(ends[0])
        check_problem(answer, 503, "overloaded")
        assert answer.headers["connection"] == "close"
        assert await _ended(ends)


async def test_who_sends_much_before_the_time_is_cut_off(start: Start) -> None:
    client = await start(requests_max=1)
    async with _full(client), connected(client) as ends:
        await _refused(ends)
        ends[1].write(head("POST", "/v1/auth/login", [("Content-Length", "60000")]) + b" " * 60_000)
        assert await _ended(ends)
