"""What leaves the server is what uvicorn would send, byte for byte, though most answers take a shorter way."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import uvicorn
from app.core.metrics import Metrics
from app.server import http_config
from app.web.overload import Door
from starlette.types import Receive, Scope, Send
from tests.harness import serving

Answer = tuple[int, Sequence[tuple[bytes, bytes]], Sequence[bytes]]

LENGTH = (b"content-length", b"5")
ANSWERS: dict[str, Answer] = {
    "whole": (200, [LENGTH, (b"x-mixed", b"Value")], [b"12345"]),
    "empty": (200, [(b"content-length", b"0")], [b""]),
    "an error": (404, [LENGTH], [b"12345"]),
    "of unknown length": (200, [], [b"12345"]),
    "in pieces": (200, [LENGTH], [b"123", b"45"]),
    "in pieces of unknown length": (200, [], [b"123", b"", b"45"]),
    "without a body": (204, [], [b""]),
    "not modified": (304, [(b"etag", b'"1"')], [b""]),
    "that ends the connection": (200, [LENGTH, (b"connection", b"close")], [b"12345"]),
    "longer than it says": (200, [LENGTH], [b"123456"]),
    "shorter than it says": (200, [LENGTH], [b"1234"]),
    "with a second line in a value": (200, [LENGTH, (b"link", b"a\r\nset-cookie: b=c")], [b"12345"]),
    "with a line feed in a value": (200, [LENGTH, (b"link", b"a\nset-cookie: b=c")], [b"12345"]),
    "with a carriage return in a value": (200, [LENGTH, (b"link", b"a\rb")], [b"12345"]),
    "with a null in a value": (200, [LENGTH, (b"link", b"a\0b")], [b"12345"]),
    "that never begins": (0, [], []),
}
UNFINISHED: Answer = (200, [LENGTH], [])
REQUESTS = {
    "GET": b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD": b"HEAD /%b HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST": b"POST /%b?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    "chunked": b"POST /%b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "the last of its connection": b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "old": b"GET /%b HTTP/1.0\r\n\r\n",
    "two at once": b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" * 2,
}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the answer that the path names, once it has the request's body."""
    if scope["type"] == "lifespan":
        scope["state"].update(door=Door(1_000_000, Metrics(), proxies=[]), refusals=None)
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    assert scope["state"].get("body") in {None, b"", b"body"}
    assert (await receive())["body"] in {b"", b"body"}
    status, headers, pieces = _answer(int(scope["path"][1:]))
    if status:
        await send({"type": "http.response.start", "status": status, "headers": headers})
    for number, piece in enumerate(pieces, start=1):
        await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})


def _answer(number: int) -> Answer:
    return list(ANSWERS.values())[number] if number < len(ANSWERS) else UNFINISHED


async def said(port: int, request: bytes) -> bytes:
    """All that is sent until the connection ends, or nothing more comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request + b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % list(ANSWERS).index("empty"))
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    lines = answer.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"date: "))


@pytest.fixture(scope="module")
async def ports() -> AsyncIterator[tuple[int, int]]:
    """Our server and uvicorn's, with the same application."""
    theirs = uvicorn.Config(application, http="httptools", ws="none", server_header=False, log_config=None)
    theirs.access_log, ours_too = False, http_config(application)
    theirs.headers = ours_too.headers = [("server", "one of two")]
    async with serving(ours_too) as ours, serving(theirs) as plain:
        yield ours, plain


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_every_kind_of_answer_to_every_kind_of_request(
    ports: tuple[int, int], answer: str, request_: bytes
) -> None:
    path = b"%d" % list(ANSWERS).index(answer)
    ours, theirs = [await said(port, request_.replace(b"%b", path)) for port in ports]
    assert ours == theirs
    assert b"set-cookie" not in ours


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_an_answer_that_is_begun_and_never_ended_is_a_500(ports: tuple[int, int], request_: bytes) -> None:
    """Left to uvicorn, the beginning would have been sent, and only hanging up be left."""
    ours = await said(ports[0], request_.replace(b"%b", b"%d" % len(ANSWERS)))
    assert ours.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"200" not in ours
