"""Slots for requests: a request that finds none is refused at once, and a slot is free when its response starts."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import islice
from typing import Any

import httpx2
import pytest
from app.core.bounds import EdgeBounds
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN, read, scrape
from tests.harness import Account, Key, generate
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, chunk, connected, head, read_answer, send_raw
from tests.standins.listening import listening
from tests.web.held_logins import LOGIN as HELD_LOGIN
from tests.web.held_logins import HeldLogins

SLOTS = 3
LOOPBACK = "127.0.0.0/8"
METRICS = {"Authorization": f"Bearer {METRICS_TOKEN}"}
LOGIN = head("POST", "/v1/auth/login", [JSON_TYPE, ("Content-Length", "10")])
CHUNKED_LOGIN = head("POST", "/v1/auth/login", [JSON_TYPE, ("Transfer-Encoding", "chunked")])
FIRST_PART = b"{"
EXPECT = ("Expect", "100-continue")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> HeldLogins:
    """What holds the slots."""
    return HeldLogins(monkeypatch)


@pytest.fixture
async def small(start: Start) -> httpx2.AsyncClient:
    """An application with three slots. The test is a trusted proxy, whose connections are read after a refusal too."""
    return await start(requests_max=SLOTS, metrics_token=METRICS_TOKEN, trusted_proxies=LOOPBACK)


@pytest.fixture
async def impatient(start: Start, externals: dict[str, Any]) -> httpx2.AsyncClient:
    """An application with one slot, which waits for a body for a twentieth of a second."""
    externals["edge_bounds"] = EdgeBounds(body_seconds=0.05)
    return await start(requests_max=1)


@asynccontextmanager
async def _slots_taken(
    client: httpx2.AsyncClient, held: HeldLogins, *, more: int, slots: int = SLOTS
) -> AsyncIterator[Sequence[httpx2.Response]]:
    """All slots are taken until the block ends. The responses to `more` requests, sent together with those that took
    them.
    """
    held.let_go.clear()
    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(connected(client)) for _ in range(slots + more)]
        for _, writer in ends:
            writer.write(HELD_LOGIN)
        calls = [asyncio.ensure_future(read_answer(reader)) for reader, _ in ends]
        yield [await each for each in islice(asyncio.as_completed(calls), more)]
        assert [call.done() for call in calls].count(True) == more
        held.let_go.set()
        assert sorted([answer.status_code for answer in await asyncio.gather(*calls)]) == [401] * slots + [503] * more


async def _assert_free_slots(client: httpx2.AsyncClient, held: HeldLogins, slots: int = SLOTS) -> None:
    """Exactly so many slots are free."""
    async with _slots_taken(client, held, more=3, slots=slots) as refused:
        for answer in refused:
            check_problem(answer, 503, "overloaded")


async def test_a_request_without_a_free_slot_is_refused_and_health_is_still_answered(
    small: httpx2.AsyncClient, account: Account, held: HeldLogins
) -> None:
    key = await account.create_key()
    async with _slots_taken(small, held, more=5) as refused:
        for answer in (*refused, await generate(small, key), await small.get("/openapi.json")):
            check_problem(answer, 503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["detail"] == "The service has too much to do; try again"
        for path in ("/health", "/ready", "/metrics"):
            assert (await small.get(path, headers=METRICS)).status_code == 200
            assert (await small.delete(path)).status_code == 405
            check_problem(await small.get(f"{path}/"), 503, "overloaded")
        assert [(await small.head(path)).status_code for path in ("/health", "/ready")] == [200, 200]
        check_problem(await small.get("/metrics"), 401, "invalid_metrics_token")
    counted = read(await scrape(small))
    assert counted["nanobanana_overload_refusals"] == {(): 5 + 2 + 3}
    of_requests = counted["nanobanana_http_requests"]
    assert sum(count for labels, count in of_requests.items() if ("route", "refused") in labels) == 5 + 2 + 3
    assert (await generate(small, key)).status_code == 200
    await _assert_free_slots(small, held)


async def test_every_kind_of_response_frees_its_slot(
    small: httpx2.AsyncClient, account: Account, held: HeldLogins, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    key = await account.create_key()
    monkeypatch.setattr("app.features.keys.service.create", fail)
    picture = (await generate(small, key)).json()["url"].removeprefix("https://pictures.test")
    for _ in range(SLOTS + 1):
        answers = [
            await small.get("/nothing"),
            await small.put("/health"),
            await generate(small, key, size="0x0"),
            await generate(small, Key("", "x")),
            await small.post("/v1/keys", json={"name": "a"}, headers=account.headers),
            await small.head(picture),
            await small.get("/docs/assets/swagger-ui.css"),
            await send_raw(small, head("POST", "/v1/generate", [("Content-Length", "1073741824")])),
            await send_raw(small, head("TRACE", "/v1/keys%0a")),
            await send_raw(small, CHUNKED_LOGIN, *[chunk(b" " * 4096)] * 17),
        ]
        statuses = [answer.status_code for answer in answers]
        assert statuses == [404, 405, 422, 401, 500, 200, 200, 413, 404, 413]
    await _assert_free_slots(small, held)


async def test_a_client_that_hangs_up_before_its_body_has_arrived_leaves_its_slot_free(
    start: Start, account: Account, held: HeldLogins
) -> None:
    client, key = await start(requests_max=1, trusted_proxies=LOOPBACK), await account.create_key()
    length, chunks = ("Content-Length", "10"), ("Transfer-Encoding", "chunked")
    for path, framing in (("/v1/auth/login", length), ("/v1/auth/login", chunks), ("/v1/generate", length)) * 2:
        async with connected(client) as (reader, writer):
            writer.write(head("POST", path, [*key.headers.items(), JSON_TYPE, EXPECT, framing]))
            assert await reader.readexactly(len(CONTINUE)) == CONTINUE
            writer.write(chunk(FIRST_PART) if framing is chunks else FIRST_PART)
    await _assert_free_slots(client, held, 1)


@pytest.mark.parametrize("path", ["/log-in", "/v1/auth/login"])
async def test_a_thousand_requests_whose_bodies_do_not_arrive_hold_no_slot_of_others(
    start: Start, account: Account, path: str, held: HeldLogins
) -> None:
    media_type = "application/json" if path.startswith("/v1") else "application/x-www-form-urlencoded"
    client, key = await start(requests_max=100, connections_per_address_max=2000), await account.create_key()
    headers = [("Content-Type", media_type), ("Content-Length", "100"), ("Origin", "https://pictures.test"), EXPECT]
    async with AsyncExitStack() as stack:
        answers = []
        for _ in range(1000):
            reader, writer = await stack.enter_async_context(connected(client))
            writer.write(head("POST", path, headers))
            assert await reader.readexactly(len(CONTINUE)) == CONTINUE
            answers.append(asyncio.ensure_future(read_answer(reader)))
        assert [(await generate(client, key)).status_code for _ in range(20)] == [200] * 20
        assert {(await each).status_code for each in answers[:-100]} == {408}
        assert not any(each.done() for each in answers[-100:]), "as many may wait as there are slots"
        for each in answers:
            each.cancel()
    await _assert_free_slots(client, held, 100)


async def test_a_body_that_arrives_slowly_is_awaited_however_many_bodies_another_address_does_not_send(
    small: httpx2.AsyncClient, account: Account, held: HeldLogins
) -> None:
    key = await account.create_key()
    owner, stranger = ("X-Forwarded-For", "198.51.100.9"), ("X-Forwarded-For", "203.0.113.7")
    upload = [*key.headers.items(), ("Content-Type", "image/png"), ("Content-Length", "2"), EXPECT, owner]
    silent = [JSON_TYPE, ("Content-Length", "2"), EXPECT, stranger]
    async with AsyncExitStack() as stack:
        slow, *strangers = [await stack.enter_async_context(connected(small)) for _ in range(1 + 3 * SLOTS)]
        slow[1].write(head("POST", "/v1/uploads", upload))
        assert await slow[0].readexactly(len(CONTINUE)) == CONTINUE
        for reader, writer in strangers:
            writer.write(head("POST", "/v1/auth/login", silent))
            assert await reader.readexactly(len(CONTINUE)) == CONTINUE
        among_them = SLOTS - 1
        ended = [(await read_answer(reader)).status_code for reader, _ in strangers[:-among_them]]
        slow[1].write(b"no")
        assert (await read_answer(slow[0])).status_code == 422, "it was read, and is no image"
        for _, writer in strangers[-among_them:]:
            writer.write(b"{}")
        last = [(await read_answer(reader)).status_code for reader, _ in strangers[-among_them:]]
        assert (ended, last) == ([408] * (3 * SLOTS - among_them), [422] * among_them), "those that waited longest end"
    await _assert_free_slots(small, held)


async def test_a_slot_is_taken_again_when_the_body_is_here_and_without_one_the_request_is_refused(
    start: Start, held: HeldLogins
) -> None:
    client = await start(requests_max=1, trusted_proxies=LOOPBACK)
    for status in (422, 422, 503):
        async with connected(client) as (reader, writer), AsyncExitStack() as stack:
            writer.write(head("POST", "/v1/auth/login", [JSON_TYPE, EXPECT, ("Content-Length", "2")]))
            assert await reader.readexactly(len(CONTINUE)) == CONTINUE
            if status == 503:
                await stack.enter_async_context(_slots_taken(client, held, more=1, slots=1))
            writer.write(b"{}")
            answer = await read_answer(reader)
            check_problem(answer, status, answer.json()["code"], more=["errors"] if status == 422 else [])
    await _assert_free_slots(client, held, 1)


async def test_a_request_for_health_takes_no_slot(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.database_check.DATABASE_SECONDS_MAX", 20)
    asked, over = asyncio.Event(), asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await over.wait()

    async with listening(say_nothing) as port:
        url = f"postgresql://nobody@127.0.0.1:{port}/nothing"
        client = await start(requests_max=1, database_url=url)
        ready = asyncio.ensure_future(client.get("/ready"))
        await asked.wait()
        meanwhile, too_early = await client.get("/nothing"), ready.done()
        over.set()
        check_problem(await ready, 503, "unavailable")
        assert (meanwhile.status_code, too_early) == (404, False)


@asynccontextmanager
async def _reading_slowly(client: httpx2.AsyncClient, target: str) -> AsyncIterator[None]:
    """A client that has read the first line of its response, and does not read the rest."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        taken.settimeout(0)
        await asyncio.get_running_loop().sock_connect(taken, (client.base_url.host, client.base_url.port))
        reader, writer = await asyncio.open_connection(sock=taken, limit=1024)
        writer.write(head("GET", target))
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        yield
        writer.transport.abort()


async def test_a_client_that_reads_slowly_holds_no_slot(small: httpx2.AsyncClient, held: HeldLogins) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(SLOTS):
            await stack.enter_async_context(_reading_slowly(small, "/docs/assets/swagger-ui-bundle.js"))
        await _assert_free_slots(small, held)


async def test_a_body_that_does_not_arrive_is_a_408_that_ends_the_connection_and_frees_the_slot(
    impatient: httpx2.AsyncClient, account: Account
) -> None:
    by_token, by_key = account.headers, (await account.create_key()).headers
    for path, credential in [
        ("/v1/auth/register", {}),
        ("/v1/auth/login", {}),
        ("/v1/keys", by_token),
        ("/v1/generate", by_key),
    ]:
        for part in (b"", b'{"prompt": '):
            async with connected(impatient) as (reader, writer):
                writer.write(head("POST", path, [*credential.items(), JSON_TYPE, ("Content-Length", "50")]) + part)
                answer = await read_answer(reader)
                assert await reader.read() == b""
            check_problem(answer, 408, "request_timeout")
            assert answer.headers["connection"] == "close"
            assert (await impatient.get("/openapi.json")).status_code == 200


async def test_a_body_that_arrives_byte_by_byte_has_no_more_time_than_any_other(impatient: httpx2.AsyncClient) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(chunk(b" "))
                await writer.drain()
                await asyncio.sleep(0.005)

    async with connected(impatient) as (reader, writer):
        writer.write(CHUNKED_LOGIN)
        trickling = asyncio.ensure_future(trickle(writer))
        check_problem(await read_answer(reader), 408, "request_timeout")
        trickling.cancel()
    assert (await impatient.get("/openapi.json")).status_code == 200
