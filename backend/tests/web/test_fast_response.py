"""FastResponse sends the bytes that uvicorn alone would send, for every kind of response to every kind of request."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import uvicorn
from app.server import http_config
from starlette.types import Receive, Scope, Send
from tests.harness import serving
from tests.web.small_server import complete_lifespan

Response = tuple[int, Sequence[tuple[bytes, bytes]], Sequence[bytes]]

LENGTH = (b"content-length", b"5")
RESPONSES: dict[str, Response] = {
    "whole": (200, [LENGTH, (b"x-mixed", b"Value")], [b"12345"]),
    "empty": (200, [(b"content-length", b"0")], [b""]),
    "error": (404, [LENGTH], [b"12345"]),
    "of unknown length": (200, [], [b"12345"]),
    "in pieces": (200, [LENGTH], [b"123", b"45"]),
    "in pieces of unknown length": (200, [], [b"123", b"", b"45"]),
    "no body": (204, [], [b""]),
    "not modified": (304, [(b"etag", b'"1"')], [b""]),
    "end of the connection": (200, [LENGTH, (b"connection", b"close")], [b"12345"]),
    "longer than its length": (200, [LENGTH], [b"123456"]),
    "shorter than its length": (200, [LENGTH], [b"1234"]),
    "second line in a value": (200, [LENGTH, (b"link", b"a\r\nset-cookie: b=c")], [b"12345"]),
    "line feed in a value": (200, [LENGTH, (b"link", b"a\nset-cookie: b=c")], [b"12345"]),
    "carriage return in a value": (200, [LENGTH, (b"link", b"a\rb")], [b"12345"]),
    "null in a value": (200, [LENGTH, (b"link", b"a\0b")], [b"12345"]),
    "none": (0, [], []),
}
UNFINISHED: Response = (200, [LENGTH], [])
REQUESTS = {
    "GET": b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD": b"HEAD /%b HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST": b"POST /%b?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    "chunked": b"POST /%b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "Connection: close": b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "HTTP/1.0": b"GET /%b HTTP/1.0\r\n\r\n",
    "pipelined": b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" * 2,
}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the response that the path names by its number, once it has received the request's body."""
    if scope["type"] == "lifespan":
        await complete_lifespan(scope, receive, send)
        return
    assert scope["state"].get("whole_body") in {None, b"", b"body"}
    assert (await receive())["body"] in {b"", b"body"}
    status, headers, pieces = _response(int(scope["path"][1:]))
    if status:
        await send({"type": "http.response.start", "status": status, "headers": headers})
    for number, piece in enumerate(pieces, start=1):
        await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})


def _response(number: int) -> Response:
    return list(RESPONSES.values())[number] if number < len(RESPONSES) else UNFINISHED


async def received(port: int, request: bytes) -> bytes:
    """All that the server sends after this request, and after another that ends the connection, without `Date`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request + b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % list(RESPONSES).index("empty"))
    async with asyncio.timeout(20):
        response = await reader.read()
    writer.close()
    lines = response.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"date: "))


@pytest.fixture(scope="module")
async def ports() -> AsyncIterator[tuple[int, int]]:
    """The ports of our server and of a plain uvicorn, with the same application."""
    theirs = uvicorn.Config(application, http="httptools", ws="none", server_header=False, log_config=None)
    theirs.access_log, ours = False, http_config(application)
    theirs.headers = ours.headers = [("server", "one of two")]
    async with serving(ours) as our_port, serving(theirs) as their_port:
        yield our_port, their_port


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("response", RESPONSES)
async def test_every_response_to_every_request_is_byte_for_byte_that_of_uvicorn(
    ports: tuple[int, int], response: str, request_: bytes
) -> None:
    path = b"%d" % list(RESPONSES).index(response)
    ours, theirs = [await received(port, request_.replace(b"%b", path)) for port in ports]
    assert ours == theirs
    assert b"set-cookie" not in ours


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_a_response_that_the_application_starts_and_never_ends_is_a_500(
    ports: tuple[int, int], request_: bytes
) -> None:
    """Uvicorn alone would send the start, and could then only end the connection."""
    ours = await received(ports[0], request_.replace(b"%b", b"%d" % len(RESPONSES)))
    assert ours.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"200" not in ours
