"""A small HTTP/1.1 server for stand-ins: it records its requests, and can fail as real servers do."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

from tests.standins.listening import Converse, listening


@dataclass(frozen=True)
class Seen:
    """A received request; the names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """A response, or the failure to send one."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    """Nothing is sent before it is set."""
    delay_seconds: float = 0
    cut_after: int | None = None
    """The connection ends after so many bytes of the content, though Content-Length names all of them."""
    is_reset: bool = False
    """The connection is reset instead of a response."""
    is_closed: bool = False
    """The connection ends instead of a response."""
    closed_after: asyncio.Event | None = None
    """The connection ends after the response, which does not announce it; then this is set."""
    is_stuck: bool = False
    """The content is sent without its end, and the connection stays open."""
    later: tuple[asyncio.Event, bytes] | None = None
    """More of the content, which is sent once the event is set."""
    is_endless: bool = False
    """The content is sent again and again until the client disconnects."""


def json_reply(body: object, *, status: int = 200, **more: Any) -> Reply:
    return Reply(json.dumps(body).encode(), status, {"Content-Type": "application/json; charset=UTF-8"}, **more)


@asynccontextmanager
async def serving(
    answer: Callable[[Seen], Reply], *, port: int = 0, tls: SSLContext | None = None
) -> AsyncIterator[str]:
    """The URL of a server on a loopback port, a free one by default, that replies with `answer`."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _answer_one(reader, writer, answer):
            pass

    async with conversing(converse, port=port, tls=tls) as url:
        yield url


@asynccontextmanager
async def conversing(converse: Converse, *, port: int = 0, tls: SSLContext | None = None) -> AsyncIterator[str]:
    """The same of a server that treats each connection so, until the end of the context."""
    async with listening(converse, port=port, tls=tls, backlog=4096) as bound:
        yield f"http{'s' if tls else ''}://127.0.0.1:{bound}"


async def _answer_one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[Seen], Reply]
) -> bool:
    """Answers one request. Returns whether the connection stays open."""
    seen = await _read(reader)
    reply = answer(seen)
    if reply.gate is not None:
        await reply.gate.wait()
    await asyncio.sleep(reply.delay_seconds)
    if reply.is_reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    if reply.is_closed:
        return False
    later, rest = reply.later or (None, b"")
    length = {} if reply.is_endless or reply.is_stuck else {"Content-Length": str(len(reply.content + rest))}
    lines = [
        f"HTTP/1.1 {reply.status} Status",
        *(f"{name}: {value}" for name, value in (reply.headers | length).items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    writer.write(reply.content[: reply.cut_after])
    await writer.drain()
    if later is not None:
        await later.wait()
        writer.write(rest)
        await writer.drain()
    if reply.is_stuck:
        await reader.read()
    while reply.is_endless:
        writer.write(reply.content)
        await writer.drain()
    if reply.closed_after is not None:
        writer.close()
        await writer.wait_closed()
        reply.closed_after.set()
        return False
    return reply.cut_after is None and seen.headers.get("connection", "").lower() != "close"


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.rstrip().split("\r\n")
    method, target, _version = request_line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Seen(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
