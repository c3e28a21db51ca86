"""HTTP as bytes, for what no client library would send."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx2

_SECONDS_MAX = 60
Headers = Iterable[tuple[str, str]]

JSON_TYPE = ("Content-Type", "application/json")


def head(method: str, target: str, headers: Headers = ()) -> bytes:
    """A request as far as its empty line. Names may come twice."""
    lines = [f"{method} {target} HTTP/1.1", "Host: pictures.test", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def send_raw(client: httpx2.AsyncClient, request: bytes, *more: bytes) -> httpx2.Response:
    """The answer to these very bytes. The connection stays half open: nothing tells the server that no more comes."""
    async with asyncio.timeout(_SECONDS_MAX), connected(client) as (reader, writer):
        for part in (request, *more):
            writer.write(part)
            await writer.drain()
        return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> httpx2.Response:
    """The next answer of a connection."""
    async with asyncio.timeout(_SECONDS_MAX):
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = httpx2.Headers([(name, value) for name, _, value in (line.partition(": ") for line in lines)])
        content = await reader.readexactly(int(headers.get("content-length", "0")))
    return httpx2.Response(int(status_line.split()[1]), headers=headers, content=content)


async def leave_after(client: httpx2.AsyncClient, request: bytes) -> None:
    """Sends these bytes and hangs up."""
    async with asyncio.timeout(_SECONDS_MAX), connected(client) as (_, writer):
        writer.write(request)
        await writer.drain()


@asynccontextmanager
async def crowd(client: httpx2.AsyncClient, request: bytes, clients: int) -> AsyncIterator[None]:
    """So many clients have sent these bytes. They hang up when the block ends."""
    async with AsyncExitStack() as stack:
        for _ in range(clients):
            _, writer = await stack.enter_async_context(connected(client))
            writer.write(request)
        yield


def post_of(path: str, body: bytes, headers: Headers = (), *, media_type: str = "application/json") -> bytes:
    """A POST with its body."""
    about_it = [("Content-Type", media_type), ("Content-Length", str(len(body)))]
    return head("POST", path, [*headers, *about_it]) + body


@asynccontextmanager
async def connected(client: httpx2.AsyncClient) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of its own, closed at the end."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):  # the server may have hung up first
            await writer.wait_closed()
