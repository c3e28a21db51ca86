"""`make bench-edge`: one worker, clients that hold what they can, and what one ordinary caller feels beside them."""

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from secrets import token_urlsafe
from urllib.parse import urlsplit

import uvicorn
from app.core.memory import return_large_blocks_when_freed
from app.core.settings import load_settings
from app.main import create_app
from app.server import http_config
from benchmarks.machine import BACKEND, WIDE_OPEN, Key, Server, database, free_port, machine, new_keys, serving
from benchmarks.overload import generate_on, look_at_health, percentiles
from fastapi import Request, Response
from tests.chaos.load import Call, Line

SECONDS, SECONDS_MAX = 60, 600
SLOW, UNREAD, IDLE = 200, 200, 2000
ANSWER_BYTES = 4 * 1024 * 1024
SETTLE_SECONDS = 5
_DESCRIPTORS = 8192
_AGAIN_SECONDS = 0.5

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Felt:
    """Milliseconds that the ordinary caller waited, and a caller of `/health` on a connection of its own each time."""

    pictures: Sequence[float]
    health: Sequence[float]
    failed: int
    memory_kib: int
    """The most that the server took meanwhile."""


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["serve"]:
        serve()
    elif arguments[:1] == ["probe"]:
        asyncio.run(probe(arguments[1], Key(*arguments[2:4]), float(arguments[4])))
    else:
        measure(min(int(arguments[0]) if arguments else SECONDS, SECONDS_MAX))


def serve() -> None:
    """The program, with one more route: an answer of 4 MB that costs nothing to make."""
    return_large_blocks_when_freed()
    settings = load_settings()
    app = create_app(settings)
    app.add_route("/big", big)
    uvicorn.Server(http_config(app, host="127.0.0.1", port=settings.port, loop="uvloop")).run()


async def big(_request: Request) -> Response:
    return Response(b" " * ANSWER_BYTES)


def measure(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, max(_DESCRIPTORS, _descriptors_max())))
    port = free_port()
    with database() as url:
        settings = {"DATABASE_URL": url, "SECRET_KEY": token_urlsafe(48), "PORT": str(port), **WIDE_OPEN}
        with serving("benchmarks.edge", "serve", port=port, **settings) as server:
            [key] = new_keys(server.url, 1)
            feel(server, key, 2)  # warms up
            before = server.memory_kib
            alone = feel(server, key, seconds)
            with crowd(port):
                beside = feel(server, key, seconds)
            time.sleep(SETTLE_SECONDS)
            report(seconds, before, {"alone": alone, "beside them": beside}, server.memory_kib)


def report(seconds: int, memory_before_kib: int, felt: Mapping[str, Felt], memory_after_kib: int) -> None:
    print(
        f"\n{machine()}\nOne worker, {seconds} s: {SLOW} clients that send a byte a second, {UNREAD} that",
        end="",
    )
    print(f" do not read 4 MB, {IDLE:,} idle\n")
    print("| | picture ms | health ms | failed | memory MiB |\n|---|---|---|---|---|")
    print(f"| before | | | | {memory_before_kib / 1024:.0f} |")
    for name, each in felt.items():
        waited = f"{percentiles(each.pictures)} | {percentiles(each.health)}"
        print(f"| {name} | {waited} | {each.failed} | {each.memory_kib / 1024:.0f} |")
    print(f"| {SETTLE_SECONDS} s after | | | | {memory_after_kib / 1024:.0f} |")


def feel(server: Server, key: Key, seconds: float) -> Felt:
    """What the callers feel, in a process of their own, for so long."""
    command = [sys.executable, "-m", "benchmarks.edge", "probe", server.url, *key, str(seconds)]
    most = 0
    with ThreadPoolExecutor() as threads:
        probed = threads.submit(subprocess.run, command, cwd=BACKEND, capture_output=True, check=True)
        while not probed.done():
            most = max(most, server.memory_kib)
            time.sleep(0.25)
    return Felt(**json.loads(probed.result().stdout), memory_kib=most)


async def probe(url: str, key: Key, seconds: float) -> None:
    end, journal, health = time.monotonic() + seconds, list[Call](), list[float]()
    port = urlsplit(url).port or 0
    await asyncio.gather(generate_on(Line(port, journal), key, end), look_at_health(port, health, end))
    pictures = [1000 * (call.received - call.sent) for call in journal if call.status == 200]
    print(json.dumps({"pictures": pictures, "health": health, "failed": len(journal) - len(pictures)}))


@contextmanager
def crowd(port: int) -> Iterator[None]:
    """All clients at once, in a thread of their own, from when they are connected until the block ends."""
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(
            loop.run_until_complete, _crowd(port, connected := asyncio.Event(), over := asyncio.Event())
        )
        asyncio.run_coroutine_threadsafe(connected.wait(), loop).result(SECONDS)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(over.set)
            running.result()


async def _crowd(port: int, connected: asyncio.Event, over: asyncio.Event) -> None:
    kinds = [(_slow_head, SLOW // 2), (_slow_body, SLOW // 2), (_unread, UNREAD), (_idle, IDLE)]
    clients, begun = list[asyncio.Task[None]](), asyncio.Semaphore(0)
    for client, count in kinds:
        for _ in range(count):
            clients.append(asyncio.create_task(_again_and_again(port, client, begun)))
            await begun.acquire()  # one after another, so that no queue of the system is full
    connected.set()
    await over.wait()
    for client_task in clients:
        client_task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


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
    await _trickle(writer, b"GET /health HTTP/1.1\r\nHost: pictures.test\r\nX-Slow: ", b"a")


async def _slow_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    lines = b"Host: pictures.test\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n"
    await _trickle(writer, b"POST /v1/auth/login HTTP/1.1\r\n%b\r\n" % lines, b"a")


async def _unread(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Only a client that writes notices that it was cut off; the server ignores empty lines between requests.
    await _trickle(writer, b"GET /big HTTP/1.1\r\nHost: pictures.test\r\n\r\n", b"\r\n")


async def _trickle(writer: asyncio.StreamWriter, first: bytes, more: bytes) -> None:
    writer.write(first)
    while not writer.transport.is_closing():
        writer.write(more)
        await asyncio.sleep(1)


async def _idle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def _descriptors_max() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


if __name__ == "__main__":
    main(sys.argv[1:])
