"""What one connection may hold: bounds on the size of a head, on the time of heads, bodies and readers, and on the
number of connections. Beyond a bound the connection ends, with an answer where one can be sent.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import httpx2
import pytest
from app.core.bounds import BODY_SECONDS_MAX, EdgeBounds
from app.core.settings import Settings
from app.generations.lifetime import Lifetime, lifetime_of
from app.web.connections import Connections, Wait, WaitFor, is_late
from starlette.types import Receive, Scope, Send
from tests.harness import BEYOND_PATIENCE_SECONDS, PATIENCE_SECONDS, Account, generate, looks
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, chunk, connected, head, read_answer, send_raw
from tests.web.small_server import small_server

KIB = 1024
BIG = 32 * KIB * KIB
"""More than the system keeps for a client that does not read."""
WHOLE = 256 * KIB
"""What is written of a response at once, at most, where no more than a quarter of it is still unread."""
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
BEFORE = b"GET /before HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
CODES = {408: "request_timeout", 414: "uri_too_long", 431: "headers_too_large", 504: "response_timeout"}

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


FAR = EdgeBounds(
    sweep_seconds=0.01,
    head_seconds=BEYOND_PATIENCE_SECONDS,
    body_seconds=BEYOND_PATIENCE_SECONDS,
    reader_seconds=BEYOND_PATIENCE_SECONDS,
)


def bounds(**short: Any) -> EdgeBounds:
    """Bounds that no test meets but those given."""
    return replace(FAR, **short)


class Application:
    """Answers with the path, once it has received the body; `/big` with BIG bytes; `/held` when it is let go, and
    `/paid` then too, whatever becomes of its client.
    """

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.ended: list[str] = []
        """The paths of all requests whose work is over."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.begun.append(path)
        try:
            if path in {"/held", "/paid"}:
                scope["state"]["goes_on"] = path == "/paid"
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self.let_go.wait()
            elif path not in {"/unread", "/pieces"}:
                while (message := await receive()).get("more_body"):
                    pass
                if message["type"] == "http.disconnect":
                    return
            body = b" " * BIG if path in {"/big", "/pieces"} else path.encode()
            length = [] if path == "/pieces" else [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": length})
            await send({"type": "http.response.body", "body": body, "more_body": path == "/pieces"})
            if path == "/pieces":
                for _ in range(0, BIG, WHOLE):
                    await send({"type": "http.response.body", "body": b" " * WHOLE, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            self.cancelled.append(path)
            raise
        finally:
            self.ended.append(path)


@pytest.fixture
def application() -> Application:
    return Application()


@asynccontextmanager
async def connection(port: int, *, receive_buffer: int = 0) -> AsyncIterator[Ends]:
    with socket.socket() as taken:
        if receive_buffer:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        taken.settimeout(0)
        await asyncio.get_running_loop().sock_connect(taken, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=taken, limit=receive_buffer or 2 * BIG)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def send(ends: Ends, request: bytes, *, piece: int) -> None:
    """Sends in pieces of this size, for as long as the server reads."""
    with suppress(ConnectionError):
        for at in range(0, len(request), piece):
            ends[1].write(request[at : at + piece])
            await ends[1].drain()
            await asyncio.sleep(0)


async def until_ended(application: Application, count: int) -> None:
    """Returns once the application's work for so many requests is over."""
    for _ in looks():
        if len(application.ended) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(application.ended)


async def until_begun(application: Application, path: str) -> None:
    for _ in looks():
        if path in application.begun:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(application.begun)


async def ended(ends: Ends) -> bool:
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionError):
            return await ends[0].read() == b""
    return True


async def check_refused(ends: Ends, status: int) -> None:
    answer = await read_answer(ends[0])
    check_problem(answer, status, CODES[status])
    assert answer.headers["connection"] == "close"
    assert await ended(ends)


async def path_of(ends: Ends) -> str:
    """The path of the request that the next answer is for."""
    answer = await read_answer(ends[0])
    assert answer.status_code == 200, answer.text
    return answer.text


def lines(count: int, size: int) -> bytes:
    """So many headers of this size."""
    return b"".join(b"x-%04d: %b\r\n" % (number, b"a" * (size - 10)) for number in range(count))


TARGET = 8 * KIB - len("GET  HTTP/1.1")
HEADS: dict[str, tuple[bytes, int]] = {
    "a request line of 8 KiB": (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * (TARGET - 1)), 200),
    "a longer request line": (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * TARGET), 414),
    "a header of 16 KiB": (GET + lines(1, 16 * KIB) + b"\r\n", 200),
    "a larger header": (GET + lines(1, 16 * KIB + 1) + b"\r\n", 431),
    "100 headers": (GET + lines(99, 20) + b"\r\n", 200),
    "101 headers": (GET + lines(100, 20) + b"\r\n", 431),
    "63 KiB of headers": (GET + lines(63, KIB) + b"\r\n", 200),
    "64 KiB of headers and more": (GET + lines(64, KIB) + b"\r\n", 431),
    "a target without end": (b"GET /" + b"a" * 64 * KIB, 414),
    "a header without end": (GET + b"x-a: " + b"a" * 400 * KIB, 431),
    "a name without end": (GET + b"a" * 400 * KIB, 431),
    "headers without end": (GET + lines(1000, KIB), 431),
    "small headers without end": (GET + lines(1000, 20), 431),
    "blanks without end": (b"GET " + b" " * 400 * KIB, 431),
    "a trailer without end": (CHUNKED + b"x-a: " + b"a" * 400 * KIB, 431),
    "trailers without end": (CHUNKED + lines(1000, KIB), 431),
    "an extension of a chunk without end": (CHUNKED[:-3] + b"1;" + b"a" * 400 * KIB, 431),
}


@pytest.mark.parametrize("piece", [1000, BIG], ids=["in pieces", "at once"])
@pytest.mark.parametrize("before", [b"", BEFORE], ids=["alone", "behind another"])
@pytest.mark.parametrize("case", HEADS)
async def test_a_head_larger_than_it_may_be_is_refused_before_its_end_has_arrived(
    port: int, case: str, before: bytes, piece: int
) -> None:
    request, status = HEADS[case]
    async with connection(port) as ends:
        sending = asyncio.create_task(send(ends, before + request, piece=piece))
        if before:
            assert await path_of(ends) == "/before"
        if status == 200:
            await path_of(ends)
            await sending
            await send(ends, NEXT, piece=BIG)
            assert await path_of(ends) == "/next"
        elif before:  # the refusal is sent if the answer before it was sent already
            rest = b""
            with suppress(ConnectionError):
                rest = await ends[0].read()
            assert not rest or rest.startswith(b"HTTP/1.1 %d " % status)
        else:
            await check_refused(ends, status)
        await sending


@pytest.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    async with small_server(Application(), bounds=bounds()) as port:
        yield port


@pytest.mark.parametrize(
    ("before", "begun", "more"),
    [
        (b"", b"\r\n", b"\r\n"),
        *((before, begun, b"") for before in (b"", BEFORE) for begun in (b"G", GET, GET + b"x-a: ")),
        *((before, GET, b"a") for before in (b"", BEFORE)),
    ],
)
async def test_headers_that_are_not_complete_in_time_are_a_408_even_if_bytes_arrive(
    application: Application, before: bytes, begun: bytes, more: bytes
) -> None:
    async def trickle(ends: Ends) -> None:
        with suppress(ConnectionError):
            while more:
                ends[1].write(more)
                await asyncio.sleep(0.01)

    async with (
        small_server(application, bounds=bounds(head_seconds=0.05)) as port,
        connection(port) as silent,
        connection(port) as ends,
    ):
        ends[1].write(before + begun)
        trickling = asyncio.create_task(trickle(ends))
        if before:
            assert await path_of(ends) == "/before"
        await check_refused(ends, 408)
        trickling.cancel()
        silent[1].write(NEXT)
        assert await path_of(silent) == "/next", "a connection that has sent nothing is only idle"


POST = b"POST /%b HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize("begun", [b"", b"{"])
async def test_a_body_that_does_not_arrive_is_a_408_and_the_application_sees_its_client_leave(
    application: Application, begun: bytes
) -> None:
    async with small_server(application, bounds=bounds(body_seconds=0.05)) as port, connection(port) as ends:
        ends[1].write(POST % b"a" + begun)
        await check_refused(ends, 408)
        assert application.ended == ["/a"]


async def test_a_body_that_nobody_waits_for_any_more_ends_the_connection_without_a_second_answer(
    application: Application,
) -> None:
    async with small_server(application, bounds=bounds(body_seconds=0.05)) as port, connection(port) as ends:
        ends[1].write(POST % b"unread")
        assert await path_of(ends) == "/unread"
        assert await ended(ends)


async def test_a_body_behind_a_request_at_work_has_its_time_when_its_turn_has_come(application: Application) -> None:
    async with small_server(application, bounds=bounds(body_seconds=0.5)) as port, connection(port) as ends:
        ends[1].write(GET.replace(b"/a", b"/held") + b"\r\n" + POST % b"a")
        await asyncio.sleep(0.8)
        application.let_go.set()
        assert await path_of(ends) == "/held"
        ends[1].write(b" " * 100 + POST % b"b")
        assert await path_of(ends) == "/a"
        await check_refused(ends, 408)


async def test_a_client_that_waits_for_a_100_is_not_late(application: Application) -> None:
    async with small_server(application, bounds=bounds(body_seconds=0.05)) as port, connection(port) as ends:
        ends[1].write(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") % b"held")
        await asyncio.sleep(0.2)
        application.let_go.set()
        assert await path_of(ends) == "/held"


@pytest.mark.parametrize(
    ("kind", "amount", "waited", "silent", "late"),
    [
        (WaitFor.HEAD, 0, 10, 10, False),
        (WaitFor.HEAD, 0, 10.1, 0, True),
        (WaitFor.BODY, 0, 10, 10, False),
        (WaitFor.BODY, 0, 10.1, 10.1, True),
        (WaitFor.BODY, 10**9, 100, 10.1, True),
        (WaitFor.BODY, 600_000, 9, 1, False),
        (WaitFor.BODY, 600_000, 10.1, 1, True),
        (WaitFor.BODY, 700_000, 10.1, 1, False),
        (WaitFor.BODY, 6_000_000, 90, 1, False),
        (WaitFor.BODY, 6_000_000, 92, 1, True),
        (WaitFor.READER, 0, 1000, 30, False),
        (WaitFor.READER, 0, 1000, 30.1, True),
        (WaitFor.RESPONSE, 0, 75, 75, False),
        (WaitFor.RESPONSE, 0, 75.1, 0, True),
        (WaitFor.HANGUP, 0, 2.1, 2.1, True),
        (WaitFor.NEXT_REQUEST, 0, 1000, 1000, False),
        (WaitFor.NOTHING, 0, 1000, 1000, False),
    ],
)
def test_the_times_are_those_of_the_documentation(
    kind: WaitFor, amount: int, waited: float, silent: float, late: bool
) -> None:
    bounds = EdgeBounds(response_seconds=lifetime_of(Settings()).response_seconds)
    assert is_late(bounds, Wait(kind, amount=amount), waited=waited, silent=silent) == late


@pytest.mark.parametrize(("drawing", "recording", "seconds"), [(60, 5, 75), (600, 1, 615), (60, 60, 185)])
def test_a_generation_ends_by_itself_before_it_is_a_504(drawing: float, recording: float, seconds: float) -> None:
    lifetime = Lifetime(drawing, recording)
    assert lifetime.response_seconds == seconds > lifetime.longest_seconds - BODY_SECONDS_MAX


async def test_a_client_that_does_not_read_is_cut_off_and_what_it_held_is_free(application: Application) -> None:
    async with (
        small_server(application, bounds=bounds(reader_seconds=0.2)) as port,
        connection(port, receive_buffer=4096) as ends,
    ):
        ends[1].write(GET.replace(b"/a", b"/big") + b"\r\n")
        assert (await ends[0].readline()).startswith(b"HTTP/1.1 200")
        assert application.ended == []
        await until_ended(application, 1)
        with pytest.raises(ConnectionResetError):
            await ends[0].read()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes a connection kept each time that a response began to wait for its client."""
    sizes, unread = list[int](), Connections.unread

    def seen(connections: Connections, connection: Any, count: int) -> AbstractContextManager[None]:
        sizes.append(connection.transport.get_write_buffer_size())
        return unread(connections, connection, count)

    monkeypatch.setattr(Connections, "unread", seen)
    return sizes


@pytest.mark.parametrize("path", [b"/big", b"/pieces"])
async def test_of_a_response_that_is_not_read_a_connection_keeps_little_and_all_of_it_comes(
    application: Application, held: list[int], path: bytes
) -> None:
    async with small_server(application, bounds=bounds()) as port, connection(port, receive_buffer=4096) as ends:
        ends[1].write(GET.replace(b"/a", path) + b"Connection: close\r\n\r\n")
        for _ in looks():
            if held:
                break
            await asyncio.sleep(0.01)
        assert application.ended == []
        size = 0
        while piece := await ends[0].read(BIG):
            size += len(piece)
        assert size >= BIG
        assert application.ended == [path.decode()]
        assert 0 < max(held) <= WHOLE + WHOLE // 4 + KIB


async def test_responses_that_nobody_reads_are_bounded_over_all_connections_as_soon_as_they_are_written(
    application: Application,
) -> None:
    async with AsyncExitStack() as stack:
        none = bounds(unread_bytes_max=BIG, sweep_seconds=BEYOND_PATIENCE_SECONDS)
        port = await stack.enter_async_context(small_server(application, bounds=none))
        readers = [await stack.enter_async_context(connection(port, receive_buffer=4096)) for _ in range(3)]
        for count, ends in enumerate(readers):
            ends[1].write(GET.replace(b"/a", b"/big") + b"\r\n")
            await until_ended(application, count)
        assert application.ended == ["/big", "/big"]
        assert len((await read_answer(readers[2][0])).content) == BIG, "the longest silent ones were cut off"


LATE: dict[str, tuple[bytes, str]] = {
    "alone": (GET, "/held"),
    "behind another": (BEFORE + GET, "/held"),
    "with its body": (POST % b"a" + b" " * 100, "/held"),
    "without being asked for its body": (
        POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") % b"a",
        "/held",
    ),
    "HEAD": (GET.replace(b"GET", b"HEAD"), "/held"),
    "what goes on": (GET, "/paid"),
}


@pytest.mark.parametrize("behind", [b"", NEXT, GET], ids=["alone", "before another", "before half of another"])
@pytest.mark.parametrize("case", LATE)
async def test_a_request_that_is_not_answered_in_time_is_a_504_and_ends_the_connection(
    application: Application, time_is_up: asyncio.Event, case: str, behind: bytes
) -> None:
    request, path = LATE[case]
    end = b"" if request.endswith((b"\r\n\r\n", b" ")) else b"\r\n"
    async with small_server(application, bounds=bounds()) as port, connection(port) as ends:
        ends[1].write(request.replace(b"/a", path.encode()) + end)
        if case == "behind another":
            assert await path_of(ends) == "/before"
        await until_begun(application, path)
        ends[1].write(b"" if case == "without being asked for its body" else behind)
        time_is_up.set()
        if case == "HEAD":
            assert (await ends[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 504 ")
            assert await ended(ends)
        else:
            await check_refused(ends, 504)
        if path == "/paid":
            assert path not in application.ended
            application.let_go.set()
        await until_ended(application, len(application.begun))
        assert application.cancelled == ([] if path == "/paid" else [path])
        assert "/next" not in application.begun


async def test_a_response_that_has_begun_or_whose_request_is_incomplete_is_no_504(
    application: Application, time_is_up: asyncio.Event
) -> None:
    time_is_up.set()
    async with (
        small_server(application, bounds=bounds()) as port,
        connection(port) as slow,
        connection(port, receive_buffer=4096) as reader,
    ):
        slow[1].write(POST % b"a" + b" ")
        reader[1].write(GET.replace(b"/a", b"/pieces") + b"\r\n")
        await asyncio.sleep(0.2)
        time_is_up.clear()
        slow[1].write(b" " * 99)
        assert await path_of(slow) == "/a"
        assert (await reader[0].readline()).startswith(b"HTTP/1.1 200 ")
        assert application.ended == ["/a"]


async def test_of_too_many_idle_connections_the_oldest_are_closed(application: Application) -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(small_server(application, bounds=bounds(idle_connections_max=2)))
        held = await stack.enter_async_context(connection(port))
        held[1].write(GET.replace(b"/a", b"/held") + b"\r\n")
        idle = []
        for _ in range(4):
            idle.append(await stack.enter_async_context(connection(port)))
            idle[-1][1].write(GET + b"\r\n")
            assert await path_of(idle[-1]) == "/a"
            await asyncio.sleep(0.05)
        assert await ended(idle[0])
        assert await ended(idle[1])
        application.let_go.set()
        assert await path_of(held) == "/held"
        idle[3][1].write(NEXT)
        assert await path_of(idle[3]) == "/next"


async def test_an_address_has_no_more_connections_than_it_may_unless_it_is_a_trusted_proxys(
    application: Application,
) -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(small_server(application, bounds=bounds(), per_address_max=2))
        first, second = [await stack.enter_async_context(connection(port)) for _ in range(2)]
        for ends in (first, second):
            ends[1].write(GET + b"\r\n")
            assert await path_of(ends) == "/a"
        assert await ended(await stack.enter_async_context(connection(port)))
        first[1].write(NEXT)
        assert await path_of(first) == "/next"
        for _ in looks():
            third = await stack.enter_async_context(connection(port))
            third[1].write(NEXT)
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                assert await path_of(third) == "/next"
                break
        loopback = [ip_network("127.0.0.0/8")]
        port = await stack.enter_async_context(small_server(application, per_address_max=1, proxies=loopback))
        for _ in range(3):
            ends = await stack.enter_async_context(connection(port))
            ends[1].write(GET + b"\r\n")
            assert await path_of(ends) == "/a"


async def test_a_good_request_is_answered_before_one_that_comes_too_slowly_behind_it(application: Application) -> None:
    async with small_server(application, bounds=bounds(head_seconds=0.05)) as port, connection(port) as ends:
        ends[1].write(GET.replace(b"/a", b"/held") + b"\r\n" + GET)
        await asyncio.sleep(0.2)
        application.let_go.set()
        assert await path_of(ends) == "/held"
        await check_refused(ends, 408)


async def test_a_client_that_sends_on_after_a_refusal_can_read_it_and_is_then_cut_off(port: int) -> None:
    async with connection(port) as ends:
        await send(ends, b"hello\r\n\r\n" + b"a" * 512 * KIB, piece=4 * KIB)
        check_problem(await read_answer(ends[0]), 400, "invalid_request")
        ends[1].write(b"a" * BIG)
        with pytest.raises(ConnectionError):
            await ends[1].drain()


@pytest.mark.parametrize("framing", [("Transfer-Encoding", "chunked"), ("Content-Length", str(400 * 4096))])
async def test_an_image_is_shown_whatever_body_comes_with_its_request(
    client: httpx2.AsyncClient, account: Account, framing: tuple[str, str]
) -> None:
    url = (await generate(client, await account.create_key())).json()["url"]
    path = url.removeprefix("https://pictures.test")
    is_chunked = framing[1] == "chunked"
    body = [chunk(b" " * 4096)] * 400 + [chunk(b"")] if is_chunked else [b" " * 4096] * 400
    async with connected(client) as (reader, writer):
        writer.write(head("GET", path, [framing]) + b"".join(body) + head("GET", "/health"))
        answer = await read_answer(reader)
        if is_chunked:
            assert answer.content == (await client.get(path)).content
        else:
            check_problem(answer, 413, "body_too_large")
        assert (await read_answer(reader)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/nothing", 404, "not_found"),
        ("POST", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/keys/", 404, "not_found"),
        ("PUT", "/v1/keys", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("POST", "/docs/assets/swagger-ui.css", 405, "method_not_allowed"),
        ("POST", "/v1/auth/login", 413, "body_too_large"),
        ("POST", "/v1/generate", 413, "body_too_large"),
        ("DELETE", "/v1/keys/x", 413, "body_too_large"),
        ("GET", "/health", 413, "body_too_large"),
    ],
)
async def test_a_body_that_is_too_large_hides_no_404_and_no_405(
    client: httpx2.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await send_raw(client, head(method, path, [JSON_TYPE, ("Content-Length", "1073741824")]))
    check_problem(answer, status, code)


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/nothing", 404), ("PUT", "/v1/generate", 405)])
@pytest.mark.parametrize("headers", [[("Content-Encoding", "gzip")], [JSON_TYPE, JSON_TYPE]], ids=["encoded", "twice"])
async def test_headers_that_a_route_refuses_hide_no_404_and_no_405(
    client: httpx2.AsyncClient, method: str, path: str, status: int, headers: list[tuple[str, str]]
) -> None:
    answer = await send_raw(client, head(method, path, [*headers, ("Content-Length", "2")]), b"{}")
    assert answer.status_code == status
