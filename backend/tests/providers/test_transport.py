"""The transport to providers: whole responses of any legal framing pass, anything else is an error."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import httpx2
import pytest
from app.providers.connect import Resolver
from app.providers.transport import BUFFER_BYTES, DirectTransport, _Connection
from tests.in_memory import Seen, without_collector
from tests.standins.listening import listening
from tests.standins.wire import conversing

SECONDS = {"connect": 20, "read": 20}
Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
"""Answers the n-th request of a connection."""


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[str, list[int]]]:
    """Its URL, and how many requests came on each of its connections."""
    requests = list[int]()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, connection = 0, len(requests)
        requests.append(0)
        while not writer.is_closing():
            await reader.readuntil(b"\r\n\r\n")
            requests[connection] += 1
            await answer(number, writer)
            number += 1

    async with listening(converse) as port:
        yield f"http://127.0.0.1:{port}/", requests


def transport() -> DirectTransport:
    return DirectTransport(
        httpx2.create_ssl_context(trust_env=False),
        Resolver(),
        buffer=memoryview(bytearray(BUFFER_BYTES)),
        idle_seconds=4,
    )


async def call(client: DirectTransport, url: str, **headers: str) -> tuple[int, bytes]:
    request = httpx2.Request("GET", url, headers=headers, extensions={"timeout": SECONDS})
    response = await client.handle_async_request(request)
    try:
        return response.status_code, b"".join([chunk async for chunk in response.aiter_raw()])
    finally:
        await response.aclose()


def sending(content: bytes, *, is_closed: bool = False) -> Answer:
    async def answer(_number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        if is_closed:
            writer.close()

    return answer


EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
LARGE = bytes(range(256)) * 8192
WHOLE: Mapping[str, tuple[bytes, bytes, bool]] = {
    "a length": (HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc", False),
    "a large one": (HEAD + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE, LARGE, False),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n", b"abc", False),
    "the end of the connection": (HEAD + b"\r\nabc", b"abc", True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc", True),
    "informational first": (EARLY_HINTS + HEAD + b"Content-Length: 0\r\n\r\n", b"", False),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_response_is_received_whole_however_it_is_framed(name: str) -> None:
    sent, body, is_closed = WHOLE[name]
    async with server(sending(sent, is_closed=is_closed)) as (url, requests):
        client = transport()
        assert [await call(client, url) for _ in range(2)] == [(200, body)] * 2
        assert requests == ([1, 1] if is_closed else [2])
        await client.aclose()


BROKEN: Mapping[str, bytes] = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "half a head": HEAD + b"Content-",
    "half a body": HEAD + b"Content-Length: 9\r\n\r\nabc",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc",
    "a chunk that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\nabc",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nabc",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_anything_but_a_whole_response_is_an_error(name: str) -> None:
    async with server(sending(BROKEN[name], is_closed=True)) as (url, _):
        client = transport()
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await call(client, url)
        await client.aclose()


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
ENDLESS: Mapping[str, bytes] = {
    "one head": HEAD + b"X: " + b"a" * 2**20,
    "many heads": EARLY_HINTS * 10_000,
    "one trailer": CHUNKED + b"0\r\nX: " + b"a" * 2**20,
    "many trailers": CHUNKED + b"0\r\n" + b"X: abc\r\n" * 2**18,
    "a chunk's extension": CHUNKED + b"3;x=" + b"a" * 2**20,
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_head_or_trailers_without_end_are_an_error_before_they_are_in_memory(name: str) -> None:
    sent = ENDLESS[name]
    async with server(sending(sent)) as (url, _):
        with pytest.raises(httpx2.RemoteProtocolError):
            await call(transport(), url)


async def test_a_connection_is_not_kept_where_more_came_than_the_response_or_either_side_ends_it() -> None:
    whole = HEAD + b"Content-Length: 3\r\n\r\nabc"
    ended = whole.replace(b"OK", b"OK\r\nConnection: close")
    cases: list[tuple[bytes, dict[str, str]]] = [(whole + b"HTTP/1.1 200", {}), (ended, {})]
    for sent, headers in [*cases, (whole, {"Connection": "close"})]:
        async with server(sending(sent)) as (url, requests):
            client = transport()
            for _ in range(2):
                assert await call(client, url, **headers) == (200, b"abc")
            assert requests == [1, 1]
            await client.aclose()


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_connection_that_has_ended_leaves_nothing_for_the_collector(
    monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    """Thousands of calls at once have a connection each, of which a hundred are kept."""
    connections, answer = Seen(monkeypatch, _Connection, "connection_made"), HEAD + b"Content-Length: 3\r\n\r\nabc"
    with without_collector():
        async with server(sending(answer, is_closed=is_closed)) as (url, requests):
            client = transport()
            assert await call(client, url) == (200, b"abc")
            await client.aclose()
            del client
            await connections.assert_left()
    assert requests == [connections.calls] == [1]


async def test_a_connection_that_ends_just_before_a_request_is_an_error_at_once() -> None:
    ending, ended = asyncio.Event(), asyncio.Event()

    async def answer(_number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await ending.wait()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def trace(_event: str, _info: object) -> None:
        ending.set()
        await ended.wait()
        await asyncio.sleep(0.1)  # the end arrives here

    async with server(answer) as (url, _):
        client = transport()
        await call(client, url)
        request = httpx2.Request("GET", url, extensions={"timeout": SECONDS, "trace": trace})
        with pytest.raises(httpx2.ReadError):
            await client.handle_async_request(request)


async def test_a_header_cannot_hold_another() -> None:
    request = httpx2.Request("GET", "http://127.0.0.1:9/")
    client = transport()
    request.headers = httpx2.Headers([(b"X", b"a\r\nY: b")])
    with pytest.raises(httpx2.LocalProtocolError):
        await client.handle_async_request(request)


class Large:
    """A body of so many pieces of 64 KiB, and how many of them were made."""

    def __init__(self, pieces: int) -> None:
        self.made, self._pieces = 0, pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(1, self._pieces + 1):
            self.made = number
            yield bytes([number % 256]) * 64 * 1024

    async def posted(self, client: DirectTransport, url: str, *, seconds: float = 20) -> tuple[int, bytes]:
        about, timeout = {"Content-Length": str(self._pieces * 64 * 1024)}, {"connect": 20, "read": seconds}
        request = httpx2.Request("POST", url, headers=about, content=self, extensions={"timeout": timeout})
        response = await client.handle_async_request(request)
        try:
            return response.status_code, b"".join([chunk async for chunk in response.aiter_raw()])
        finally:
            await response.aclose()


async def test_a_large_body_arrives_whole_and_the_connection_is_kept() -> None:
    arrived = list[tuple[object, bytes]]()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            arrived.append((writer, await reader.readexactly(100 * 64 * 1024)))
            writer.write(HEAD + b"Content-Length: 2\r\n\r\nok")

    async with conversing(converse) as url:
        client = transport()
        assert [await Large(100).posted(client, url) for _ in range(2)] == [(200, b"ok")] * 2
        await client.aclose()
    assert {body for _, body in arrived} == {b"".join(bytes([n % 256]) * 64 * 1024 for n in range(1, 101))}
    assert len({writer for writer, _ in arrived}) == 1


async def test_a_response_that_comes_early_is_received_and_ends_the_writing() -> None:
    connections = list[asyncio.StreamWriter]()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nwhy?")
        while await reader.read(64 * 1024):
            pass

    async with conversing(refuse) as url:
        client = transport()
        for _ in range(2):
            body = Large(2_000)
            assert await body.posted(client, url) == (413, b"why?")
            assert body.made < 1000
            await asyncio.sleep(0.1)  # the server has read what was written
        assert len(connections) == 2
        await client.aclose()


@pytest.mark.parametrize("has_hints", [True, False])
async def test_a_provider_that_does_not_read_a_body_is_silent(has_hints: bool) -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(EARLY_HINTS if has_hints else b"")
        await asyncio.Event().wait()

    async with conversing(ignore) as url:
        client = transport()
        body = Large(2_000)
        with pytest.raises(httpx2.ReadTimeout):
            await body.posted(client, url, seconds=0.3)
        assert body.made < 1000


async def test_a_body_that_nobody_reads_stays_with_the_provider() -> None:
    written = 0

    async def endless(_number: int, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(HEAD + b"\r\n")
        while True:
            writer.write(bytes(64 * 1024))
            await writer.drain()
            written += 64 * 1024

    async with server(endless) as (url, _):
        client = transport()
        request = httpx2.Request("GET", url, extensions={"timeout": SECONDS})
        response = await client.handle_async_request(request)
        before = -1
        for _ in range(200):  # until the system's buffers are full
            if before == written:
                break
            before = written
            await asyncio.sleep(0.1)
        assert before == written
        await response.aclose()
        await client.aclose()
