"""The clients of `make bench-edge` that hold what they can, in a process of their own that gives way to all others.

With `control` it is a server instead, for the same clients: one that accepts every connection and reads nothing.
"""

import asyncio
import os
import resource
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

SLOW, UNREAD, IDLE = 200, 200, 2000
NICENESS = 19
CONNECTED = "connected"
"""What the process prints once all clients are connected, or the server listens."""

_DESCRIPTORS = 8192
_AGAIN_SECONDS = 0.5
_HOST = b"Host: pictures.test\r\n"

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def main() -> None:
    os.nice(NICENESS)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_DESCRIPTORS, most), most))
    if sys.argv[1] == "control":
        asyncio.run(read_nothing(int(sys.argv[2])))
    else:
        asyncio.run(come(int(sys.argv[1]), sys.argv[2]))


class _ReadsNothing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()


async def read_nothing(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_ReadsNothing, "127.0.0.1", port, backlog=SLOW + UNREAD)
    await server.serve_forever()


async def come(port: int, image: str) -> None:
    """All clients at once. `image` is the path of the answer that is not read."""

    async def unread(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Only a client that writes notices that it was cut off; the server ignores empty lines between requests.
        await _trickle(writer, b"GET %b HTTP/1.1\r\n%b\r\n" % (image.encode(), _HOST), b"\r\n")

    kinds = [(_slow_head, SLOW // 2), (_slow_body, SLOW // 2), (unread, UNREAD), (_idle, IDLE)]
    clients, begun = list[asyncio.Task[None]](), asyncio.Semaphore(0)
    for client, count in kinds:
        for _ in range(count):
            clients.append(asyncio.create_task(_again_and_again(port, client, begun)))
            await begun.acquire()  # one after another, so that no queue of the system is full
    print(CONNECTED, flush=True)
    await asyncio.gather(*clients)


async def _again_and_again(port: int, client: Client, begun: asyncio.Semaphore) -> None:
    """Connects once more whenever the server has ended the connection."""
    while True:
        with suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            begun.release()
            try:
                await client(reader, writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(_AGAIN_SECONDS)


async def _slow_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _trickle(writer, b"GET /health HTTP/1.1\r\n%bX-Slow: " % _HOST, b"a")


async def _slow_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    lines = b"%bContent-Type: application/json\r\nContent-Length: 10000\r\n" % _HOST
    await _trickle(writer, b"POST /v1/auth/login HTTP/1.1\r\n%b\r\n" % lines, b"a")


async def _trickle(writer: asyncio.StreamWriter, first: bytes, more: bytes) -> None:
    writer.write(first)
    while not writer.transport.is_closing():
        writer.write(more)
        await asyncio.sleep(1)


async def _idle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


if __name__ == "__main__":
    main()
