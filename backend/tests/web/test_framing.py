"""The end of a request is decided by its bytes alone, in whatever pieces they arrive, and a request that two parsers
could read differently is refused. Source: RFC 9112.

After each case the client sends one more request, `GET /next`. It is answered if the connection goes on, and not if the
server has ended it. `GET /stolen`, which is hidden in another request's body, never reaches the application.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress

import httpx2
import pytest
from app.server import http_config
from app.web.protocol import HttpProtocol
from starlette.types import Receive, Scope, Send
from tests.harness import PATIENCE_SECONDS, serving
from tests.problems import check_problem
from tests.raw_http import head, send_raw
from tests.web.small_server import complete_lifespan

Delivery = Callable[[bytes], Sequence[bytes]]
"""Cuts the bytes that a client sends into the pieces in which they arrive."""

STOLEN = b"GET /stolen HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = b"%d" % len(STOLEN)
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(STOLEN), STOLEN)


def get(*lines: bytes, target: bytes = b"/a", version: bytes = b"HTTP/1.1", host: bytes | None = b"Host: a") -> bytes:
    """The head of a GET without a body: a request line, a Host and these header lines."""
    return b"\r\n".join([b"GET %b %b" % (target, version), *([] if host is None else [host]), *lines, b"", b""])


def post(*lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """The head of a POST: a request line, a Host and these header lines."""
    return b"\r\n".join([b"POST /a %b" % version, b"Host: a", *lines, b"", b""])


WITH_LENGTH = b"Content-Length: " + LENGTH
WITH_CHUNKS = b"Transfer-Encoding: chunked"
UPGRADE = b"Connection: Upgrade", b"Upgrade: x"

# Requests that are answered, after which the connection goes on; and what the application receives, in order.
TAKEN: dict[str, tuple[bytes, str]] = {
    "no body": (get(), "GET /a"),
    "a length": (post(WITH_LENGTH) + STOLEN, "POST /a stolen"),
    "chunks": (post(WITH_CHUNKS) + CHUNKED, "POST /a stolen"),
    "chunks, in capitals": (post(b"TRANSFER-ENCODING: Chunked") + CHUNKED, "POST /a stolen"),
    "a length with zeros before it": (post(b"Content-Length: 00" + LENGTH) + STOLEN, "POST /a stolen"),
    "a length in blanks": (post(b"Content-Length: \t " + LENGTH + b" \t") + STOLEN, "POST /a stolen"),
    "a length of nothing": (post(b"Content-Length: 0"), "POST /a"),
    "neither length nor chunks": (post(), "POST /a"),
    "a body of a GET": (get(WITH_LENGTH) + STOLEN, "GET /a stolen"),
    "an upgrade": (get(*UPGRADE), "GET /a"),
    "an upgrade and a length": (post(*UPGRADE, WITH_LENGTH) + STOLEN, "POST /a stolen"),
    "an upgrade and a length of nothing": (post(*UPGRADE, b"Content-Length: 0"), "POST /a"),
    "an upgrade and chunks": (post(*UPGRADE, WITH_CHUNKS) + CHUNKED, "POST /a stolen"),
    "a length, then an upgrade": (post(WITH_LENGTH, *UPGRADE) + STOLEN, "POST /a stolen"),
    "an upgrade to a WebSocket and a length": (
        post(b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", WITH_LENGTH)
        + STOLEN,
        "POST /a stolen",
    ),
    "an upgrade as curl --http2 asks for it": (
        post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ", WITH_LENGTH)
        + STOLEN,
        "POST /a stolen",
    ),
    "an upgrade as Java asks for it": (
        post(b"Connection: Upgrade, HTTP2-Settings", WITH_LENGTH, b"HTTP2-Settings: AAEAAEAA", b"Upgrade: h2c")
        + STOLEN,
        "POST /a stolen",
    ),
    "two upgrades one after the other": (
        (post(*UPGRADE, WITH_LENGTH) + STOLEN) * 2,
        "POST /a stolen, POST /a stolen",
    ),
    "an upgrade without Connection": (post(b"Upgrade: x", WITH_LENGTH) + STOLEN, "POST /a stolen"),
    "Connection: Upgrade without one": (post(b"Connection: Upgrade", WITH_LENGTH) + STOLEN, "POST /a stolen"),
    "an empty upgrade": (post(b"Connection: Upgrade", b"Upgrade:", WITH_LENGTH) + STOLEN, "POST /a stolen"),
    "two lines of Connection and Upgrade": (
        post(b"Connection: close-not", b"Connection: upgrade", b"Upgrade: x", b"Upgrade: y", WITH_LENGTH) + STOLEN,
        "POST /a stolen",
    ),
    "an upgrade and a first piece of a body": (
        post(*UPGRADE, b"Content-Length: %d" % (len(STOLEN) + 2)) + b"{" + STOLEN + b"}",
        "POST /a stolen",
    ),
    "trailers": (post(WITH_CHUNKS) + CHUNKED[:-2] + b"Host: b\r\nX-A: b\r\n\r\n", "POST /a stolen"),
    "a chunk with an extension": (post(WITH_CHUNKS) + b"1;a=b\r\nx\r\n0\r\n\r\n", "POST /a"),
    "a chunk's size with zeros before it": (post(WITH_CHUNKS) + b"0001\r\nx\r\n000\r\n\r\n", "POST /a"),
    "two at once": (get() + get(target=b"/b"), "GET /a, GET /b"),
    "three at once, with bodies": (
        (post(WITH_LENGTH) + STOLEN) + (post(WITH_CHUNKS) + CHUNKED) + get(target=b"/b"),
        "POST /a stolen, POST /a stolen, GET /b",
    ),
    "an empty line before it": (b"\r\n" + get(), "GET /a"),
    "an absolute form with the same host": (get(target=b"http://a/a"), "GET /a"),
    "an absolute form with the same host in capitals": (get(target=b"HTTP://A/a"), "GET /a"),
    "a host with a port": (get(host=b"Host: a:8000"), "GET /a"),
    "a host of IPv6": (get(host=b"Host: [::1]:8000"), "GET /a"),
    "words beyond ASCII in a value": (get(b"X-A: caf\xc3\xa9 \xff"), "GET /a"),
    "a name with an underscore": (post(b"Content_Length: 5", WITH_LENGTH) + STOLEN, "POST /a stolen"),
    "a length that is told by another name": (get(b"X-Content-Length: 5", b"Content-Length-X: 5"), "GET /a"),
    "blanks in the request line, as RFC 9112 3 allows": (get(target=b" /a", version=b" HTTP/1.1"), "GET /a"),
}

# Requests whose head or body is refused: at most one 400, and the connection ends.
REFUSED: dict[str, bytes] = {
    "a length and chunks": post(WITH_LENGTH, WITH_CHUNKS) + CHUNKED,
    "chunks and a length": post(WITH_CHUNKS, WITH_LENGTH) + CHUNKED,
    "two lengths": post(b"Content-Length: 0", WITH_LENGTH) + STOLEN,
    "the same length twice": post(WITH_LENGTH, WITH_LENGTH) + STOLEN,
    "two lengths in one line": post(b"Content-Length: 0, " + LENGTH) + STOLEN,
    "the same length twice in one line": post(WITH_LENGTH + b", " + LENGTH) + STOLEN,
    "a length with a sign": post(b"Content-Length: +" + LENGTH) + STOLEN,
    "a negative length": post(b"Content-Length: -1") + STOLEN,
    "a length in hex": post(b"Content-Length: 0x22") + STOLEN,
    "a length with a fraction": post(b"Content-Length: 5.0") + STOLEN,
    "a length with a blank in it": post(b"Content-Length: 3 4") + STOLEN,
    "an empty length": post(b"Content-Length:") + STOLEN,
    "a length beyond 64 bit": post(b"Content-Length: 18446744073709551617") + STOLEN,
    "a length in other digits": post("Content-Length: ٣".encode()) + STOLEN,
    "a vertical tab before the length": post(b"Content-Length: \x0b" + LENGTH) + STOLEN,
    "another encoding": post(b"Transfer-Encoding: gzip") + STOLEN,
    "chunks in another encoding": post(b"Transfer-Encoding: gzip, chunked") + CHUNKED,
    "another encoding of chunks": post(b"Transfer-Encoding: chunked, gzip") + CHUNKED,
    "chunks of chunks": post(b"Transfer-Encoding: chunked, chunked") + CHUNKED,
    "chunks twice": post(WITH_CHUNKS, WITH_CHUNKS) + CHUNKED,
    "identity": post(b"Transfer-Encoding: identity", WITH_LENGTH) + STOLEN,
    "identity, then chunks": post(b"Transfer-Encoding: identity, chunked") + CHUNKED,
    "chunks and an empty member": post(b"Transfer-Encoding: chunked,") + CHUNKED,
    "an empty encoding": post(b"Transfer-Encoding:", WITH_LENGTH) + STOLEN,
    "chunks with a parameter": post(b"Transfer-Encoding: chunked;q=1") + CHUNKED,
    "chunks in quotes": post(b'Transfer-Encoding: "chunked"') + CHUNKED,
    "chunks behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked") + CHUNKED,
    "chunks before a form feed": post(b"Transfer-Encoding: chunked\x0c") + CHUNKED,
    "xchunked": post(b"Transfer-Encoding: xchunked") + CHUNKED,
    "chunks in HTTP/1.0": post(WITH_CHUNKS, version=b"HTTP/1.0") + CHUNKED,
    "an upgrade, a length and chunks": post(*UPGRADE, WITH_LENGTH, WITH_CHUNKS) + CHUNKED,
    "an upgrade and chunks that are none": post(*UPGRADE, WITH_CHUNKS) + b"z\r\n" + STOLEN,
    "a blank before the colon": post(b"Content-Length : " + LENGTH) + STOLEN,
    "a blank before the colon of chunks": post(b"Transfer-Encoding : chunked") + CHUNKED,
    "a tab before the colon": post(b"Content-Length\t: " + LENGTH) + STOLEN,
    "a blank before a name": post(b"X-A: b", b" Content-Length: " + LENGTH) + STOLEN,
    "a blank before the first name": b"POST /a HTTP/1.1\r\n Host: a\r\nContent-Length: "
    + LENGTH
    + b"\r\n\r\n"
    + STOLEN,
    "a folded value": post(b"Content-Length:\r\n " + LENGTH) + STOLEN,
    "a folded value of another header": post(b"X-A: b\r\n\tc", WITH_LENGTH) + STOLEN,
    "a folded encoding": post(b"Transfer-Encoding:\r\n chunked") + CHUNKED,
    "a name that is none": post(b"X(A): b", WITH_LENGTH) + STOLEN,
    "no name": post(b": b", WITH_LENGTH) + STOLEN,
    "no colon": post(b"Content-Length", WITH_LENGTH) + STOLEN,
    "a name beyond ASCII": post("Contént-Length: 5".encode(), WITH_LENGTH) + STOLEN,
    "a null in a name": post(b"X-\0A: b", WITH_LENGTH) + STOLEN,
    "a null in a value": post(b"X-A: b\0c", WITH_LENGTH) + STOLEN,
    "a control character in a value": post(b"X-A: b\x01c", WITH_LENGTH) + STOLEN,
    "a DEL in a value": post(b"X-A: b\x7fc", WITH_LENGTH) + STOLEN,
    "bare LF after the request line": b"POST /a HTTP/1.1\nHost: a\r\n" + WITH_LENGTH + b"\r\n\r\n" + STOLEN,
    "bare LF after a header": b"POST /a HTTP/1.1\r\nHost: a\nX-A: b\r\n" + WITH_LENGTH + b"\r\n\r\n" + STOLEN,
    "bare LF at the end of the head": b"POST /a HTTP/1.1\r\nHost: a\r\n" + WITH_LENGTH + b"\r\n\n" + STOLEN,
    "bare LF everywhere": (b"POST /a HTTP/1.1\nHost: a\n" + WITH_LENGTH + b"\n\n" + STOLEN),
    "bare CR after a header": b"POST /a HTTP/1.1\r\nHost: a\rX-A: b\r\n" + WITH_LENGTH + b"\r\n\r\n" + STOLEN,
    "bare CR in a value": post(b"X-A: b\rc", WITH_LENGTH) + STOLEN,
    "two CRs before LF": b"POST /a HTTP/1.1\r\nHost: a\r\r\n" + WITH_LENGTH + b"\r\n\r\n" + STOLEN,
    "bare LF after a chunk's size": post(WITH_CHUNKS) + b"%x\n%b\r\n0\r\n\r\n" % (len(STOLEN), STOLEN),
    "bare LF after a chunk": post(WITH_CHUNKS) + b"%x\r\n%b\n0\r\n\r\n" % (len(STOLEN), STOLEN),
    "bare LF after the last chunk": post(WITH_CHUNKS) + b"0\n\r\n",
    "bare LF at the end of chunks": post(WITH_CHUNKS) + b"0\r\n\n",
    "bare LF in an extension": post(WITH_CHUNKS) + b"1;a\nb\r\nx\r\n0\r\n\r\n",
    "bare CR in an extension": post(WITH_CHUNKS) + b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "a chunk's size with a sign": post(WITH_CHUNKS) + b"+" + CHUNKED,
    "a chunk's size with 0x": post(WITH_CHUNKS) + b"0x" + CHUNKED,
    "a chunk's size behind a blank": post(WITH_CHUNKS) + b" " + CHUNKED,
    "a chunk's size before a blank": post(WITH_CHUNKS) + b"%x \r\n%b\r\n0\r\n\r\n" % (len(STOLEN), STOLEN),
    "a chunk's size with an underscore": post(WITH_CHUNKS) + b"1_0\r\n" + STOLEN,
    "a chunk's size beyond 64 bit": post(WITH_CHUNKS) + b"10000000000000001\r\n" + STOLEN,
    "a chunk longer than its size": post(WITH_CHUNKS) + b"1\r\n%b\r\n0\r\n\r\n" % STOLEN,
    "a chunk without a size": post(WITH_CHUNKS) + b"\r\n" + STOLEN,
    "a chunk of no number": post(WITH_CHUNKS) + b"g\r\n" + STOLEN,
    "a trailer that is none": post(WITH_CHUNKS) + b"0\r\nX A: b\r\n\r\n",
    "a length among the trailers": post(WITH_CHUNKS) + b"0\r\nContent-Length: 9\r\n\r\n",
    "a folded trailer": post(WITH_CHUNKS) + b"0\r\nX-A: b\r\n c\r\n\r\n",
    "no host": get(host=None),
    "two hosts": get(b"Host: b"),
    "the same host twice": get(b"Host: a"),
    "an empty host": get(host=b"Host:"),
    "two hosts in one line": get(host=b"Host: a, b"),
    "a host with a blank": get(host=b"Host: a b"),
    "a host with a path": get(host=b"Host: a/b"),
    "a host with a user": get(host=b"Host: b@a"),
    "two hosts in HTTP/1.0": get(b"Host: b", version=b"HTTP/1.0"),
    "an absolute form with another host": get(target=b"http://b/a"),
    "an absolute form with a user": get(target=b"http://b@a/a"),
    "an absolute form of another scheme": get(target=b"ftp://a/a"),
    "an absolute form without a host": get(target=b"http:///a"),
    "an authority": get(target=b"a:80"),
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + STOLEN,
    "CONNECT to a path": b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n" + STOLEN,
    "CONNECT with a length": b"CONNECT /a HTTP/1.1\r\nHost: a\r\n" + WITH_LENGTH + b"\r\n\r\n" + STOLEN,
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a fragment": get(target=b"/a#b"),
    "a target beyond ASCII": get(target=b"/caf\xc3\xa9"),
    "a target with a control character": get(target=b"/a\x01"),
    "a target with a null": get(target=b"/a\0"),
    "a target with a blank": get(target=b"/a b"),
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab before the target": b"GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank behind the version": get(version=b"HTTP/1.1 "),
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "HTTP/0.9 with headers": get(version=b"HTTP/0.9"),
    "HTTP/1.2": get(version=b"HTTP/1.2"),
    "HTTP/1.10": get(version=b"HTTP/1.10"),
    "HTTP/01.1": get(version=b"HTTP/01.1"),
    "HTTP/2.0": get(version=b"HTTP/2.0"),
    "HTTP/2 itself": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/1.1": get(version=b"http/1.1"),
    "ICY": get(version=b"ICY/1.1"),
    "a method in small letters": b"get /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method that is none": b"G(T /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03" + b"\r\n\r\n",
    "nothing of HTTP": b"hello\r\n\r\n",
}

# Good requests before one that is refused: they are answered. It is too, if it came when they had been answered.
BROKEN: dict[str, tuple[bytes, str]] = {
    "a good request, then no host": (get() + get(host=None, target=b"/b"), "GET /a"),
    "a good one with a body, then nothing of HTTP": (post(WITH_LENGTH) + STOLEN + b"hello\r\n\r\n", "POST /a stolen"),
    "a good one, then one with a bad body": (get() + post(WITH_CHUNKS) + b"g\r\n", "GET /a"),
    "two good ones, then one with two lengths": (
        get() + get(target=b"/b") + post(b"Content-Length: 0", WITH_LENGTH) + STOLEN,
        "GET /a, GET /b",
    ),
}

# Connections that end after the requests named here are answered; the application receives no others.
ENDED: dict[str, tuple[bytes, str]] = {
    "one that ends the connection, then another": (get(b"Connection: close") + STOLEN, "GET /a"),
    "one that ends it by an old name, then another": (get(b"Proxy-Connection: close") + STOLEN, "GET /a"),
    "HTTP/1.0, then another": (get(version=b"HTTP/1.0") + STOLEN, "GET /a"),
    "HTTP/1.0 without a host, then another": (get(version=b"HTTP/1.0", host=None) + STOLEN, "GET /a"),
    "HTTP/1.0 that would go on, then another": (get(b"Connection: keep-alive", version=b"HTTP/1.0") + STOLEN, "GET /a"),
    "an upgrade that ends the connection, then another": (
        post(b"Connection: Upgrade, close", b"Upgrade: x", WITH_LENGTH) + STOLEN + STOLEN,
        "POST /a stolen",
    ),
}


class Recorder:
    """An application that answers each request with its method, its path, and ` stolen` if its body holds STOLEN."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await complete_lifespan(scope, receive, send)
            return
        self.paths.append(scope["path"])
        body = await whole_body(receive)
        hidden = " stolen" if STOLEN in body else ""
        seen = f"{scope['method']} {scope['path']}{hidden}".encode()
        length = (b"content-length", b"%d" % len(seen))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": seen})


async def whole_body(receive: Receive) -> bytes:
    """The body, or the part of it that has arrived when the connection ends."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
async def port(recorder: Recorder) -> AsyncIterator[int]:
    async with serving(http_config(recorder)) as port:
        yield port


def in_one_piece(request: bytes) -> Sequence[bytes]:
    return [request]


def heads_apart(request: bytes) -> Sequence[bytes]:
    """As a proxy sends it that forwards a head before it has the body."""
    return re.findall(rb".*?\r\n\r\n|.+", request, re.DOTALL)


def byte_by_byte(request: bytes) -> Sequence[bytes]:
    return [request[at : at + 1] for at in range(len(request))]


async def answers(port: int, pieces: Sequence[bytes]) -> str:
    """The responses on a connection until the server ends it: the body of a 200, else the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionError):  # the server may end it while more is sent; a reset loses responses
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                for _ in range(3):  # turns of the event loop, in which the server reads the piece before the next one
                    await asyncio.sleep(0)
            while data := await reader.read(65536):
                received += data
    writer.close()
    return ", ".join(read_answers(received))


def read_answers(received: bytes) -> Iterator[str]:
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        [length] = re.findall(rb"(?im)^content-length: (\d+)", head)
        status, body = head.split(b" ")[1], received[: int(length)]
        received = received[int(length) :]
        yield (body if status == b"200" else status).decode()


async def test_the_server_reads_what_is_sent_apart_apart(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read, data_received = [], HttpProtocol.data_received

    def keep(protocol: HttpProtocol, data: bytes) -> None:
        read.append(data)
        data_received(protocol, data)

    monkeypatch.setattr(HttpProtocol, "data_received", keep)
    await answers(port, byte_by_byte(NEXT))
    assert read == byte_by_byte(NEXT)


@pytest.mark.parametrize("delivered", [in_one_piece, heads_apart, byte_by_byte])
@pytest.mark.parametrize("case", TAKEN)
async def test_a_body_belongs_to_its_request_and_the_connection_goes_on(
    port: int, recorder: Recorder, case: str, delivered: Delivery
) -> None:
    request, expected = TAKEN[case]
    recorder.paths.clear()
    assert await answers(port, delivered(request + NEXT)) == f"{expected}, GET /next"
    assert "/stolen" not in recorder.paths


@pytest.mark.parametrize("delivered", [in_one_piece, heads_apart, byte_by_byte])
@pytest.mark.parametrize("case", REFUSED)
async def test_a_request_that_can_be_read_in_two_ways_is_refused_and_ends_the_connection(
    port: int, recorder: Recorder, case: str, delivered: Delivery
) -> None:
    recorder.paths.clear()
    assert await answers(port, delivered(REFUSED[case] + NEXT)) in {"400", ""}
    assert not {"/stolen", "/next"} & set(recorder.paths)


@pytest.mark.parametrize("delivered", [in_one_piece, heads_apart, byte_by_byte])
@pytest.mark.parametrize("case", ENDED)
async def test_requests_before_the_end_of_a_connection_are_answered_and_none_after_it(
    port: int, recorder: Recorder, case: str, delivered: Delivery
) -> None:
    request, expected = ENDED[case]
    recorder.paths.clear()
    assert await answers(port, delivered(request + NEXT)) in {expected, ""}
    assert not {"/stolen", "/next"} & set(recorder.paths)


@pytest.mark.parametrize("delivered", [in_one_piece, heads_apart, byte_by_byte])
@pytest.mark.parametrize("case", BROKEN)
async def test_requests_before_a_refused_one_are_answered(
    port: int, recorder: Recorder, case: str, delivered: Delivery
) -> None:
    request, expected = BROKEN[case]
    recorder.paths.clear()
    accepted = {expected} if delivered is in_one_piece else {expected, f"{expected}, 400"}
    assert await answers(port, delivered(request + NEXT)) in accepted
    assert not {"/stolen", "/next"} & set(recorder.paths)


async def test_a_refused_request_gets_a_problem_document(client: httpx2.AsyncClient) -> None:
    check_problem(await send_raw(client, REFUSED["no host"]), 400, "invalid_request")


async def test_trailers_are_not_added_to_the_headers() -> None:
    """A second credential could otherwise arrive after the check that there is only one."""
    received = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await recorder(scope, receive, send)
        received.extend(scope.get("headers", []))

    recorder = Recorder()
    async with serving(http_config(application)) as port:
        body = CHUNKED.removesuffix(b"\r\n") + b"Authorization: Bearer b\r\n\r\n"
        await answers(port, [post(WITH_CHUNKS) + body + NEXT])
    assert (b"transfer-encoding", b"chunked") in received
    assert "authorization" not in {name for name, _ in received}


async def test_an_empty_header_value_does_not_take_the_value_of_the_next_header(client: httpx2.AsyncClient) -> None:
    lines = [("X-Empty", ""), ("Authorization", "Bearer nothing"), ("Content-Length", "0")]
    check_problem(await send_raw(client, head("GET", "/v1/auth/me", lines)), 401, "invalid_token")


async def test_curl_that_asks_for_http_2_is_answered_in_http_1(client: httpx2.AsyncClient) -> None:
    login = ["-H", "Content-Type: application/json", "-d", "{}", str(client.base_url.join("/v1/auth/login"))]
    curl = await asyncio.create_subprocess_exec("curl", "-s", "--http2", *login, stdout=asyncio.subprocess.PIPE)
    output, _ = await curl.communicate()
    assert json.loads(output)["code"] == "validation_error"
