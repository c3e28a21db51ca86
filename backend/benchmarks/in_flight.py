"""`make bench-provider`: thousands of generations in flight on a provider that takes ten seconds, in one process."""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from urllib.request import urlopen

import asyncpg
import uvloop
from benchmarks import provider
from benchmarks.machine import BACKEND, WIDE_OPEN, Server, database, free_port, machine, new_key, serving
from sqlalchemy.engine import make_url

CALLS = 5000
PROVIDER_SECONDS = 10
SIDE = 64
ARRIVALS = {"arriving over 8 s": 8.0, "all at once": 0.0}  # within less than the provider takes, so that all overlap
WARM_UP_CALLS = 200
PAUSE_SECONDS = 5
CONNECTING = 200  # at a time, below what the server's socket lets wait
LOOK_SECONDS = 0.1
DESCRIPTORS = 3 * CALLS  # in one process: a connection of each caller, one to the provider, a file, and some more
DEADLINE_SECONDS = 60

_BUSY = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name = 'nanobanana' and (state <> 'idle' or xact_start is not null)
"""
_RECORDED = """
select (select count(*) from generations), (select count(*) from generations where status = 'delivered'),
  (select coalesce(sum(pictures), 0)::bigint from usage)
"""


@dataclass(frozen=True)
class Plateau:
    """What was seen while the provider held all calls."""

    looks: int
    busy_connections: int
    memory_kib: int


def main() -> None:
    if sys.argv[1:2] == ["call"]:
        uvloop.run(call_all(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(DESCRIPTORS, _descriptors_max())))
    with ExitStack() as stack:
        url = stack.enter_context(database())
        upstream = stack.enter_context(provider.provider(side=SIDE, delay_seconds=PROVIDER_SECONDS))
        port = free_port()
        settings = {
            **WIDE_OPEN,
            **provider.settings(upstream, side=SIDE),
            "DATABASE_URL": url,
            "DATA_DIR": stack.enter_context(TemporaryDirectory(prefix="bench-pictures-")),
            "SECRET_KEY": token_urlsafe(48),
            "REQUESTS_MAX": str(2 * CALLS),
            "PROVIDER_CALLS_MAX": str(CALLS),
            "PROVIDER_CALLS_MAX_PER_ACCOUNT": str(CALLS),  # all callers are one account
            "GENERATION_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
        }
        server = stack.enter_context(serving("app.cli", "serve", port=port, PORT=str(port), **settings))
        asyncio.run(measure(server, upstream, url))


async def measure(server: Server, upstream: Server, url: str) -> None:
    key = await asyncio.to_thread(new_key, server.url)
    await asyncio.to_thread(call, server, key, WARM_UP_CALLS, 0)
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
    idle = server.memory_kib
    print(f"\n{machine()}\n{CALLS:,} callers, a provider that takes {PROVIDER_SECONDS} s, one process\n")
    print("| callers | answers | seconds added: median | slowest | looks at the plateau | busy connections |", end="")
    print(" KiB each | CPU seconds | recorded, delivered, counted |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, seconds in ARRIVALS.items():
        spent, before = server.cpu_seconds, await connection.fetchrow(_RECORDED)
        calling = asyncio.create_task(asyncio.to_thread(call, server, key, CALLS, seconds))
        plateau = await watch(server, upstream, connection, calling)
        answered, cpu_seconds = await calling, server.cpu_seconds - spent
        after = await connection.fetchrow(_RECORDED)
        recorded = [now - earlier for now, earlier in zip(after or (), before or (), strict=True)]
        kib_each = (plateau.memory_kib - idle) / CALLS
        print(row(name, answered, plateau, [f"{kib_each:.0f}", f"{cpu_seconds:.1f}"], recorded), flush=True)
        await asyncio.sleep(PAUSE_SECONDS)
    await connection.close()


async def watch(
    server: Server, upstream: Server, connection: asyncpg.Connection, calling: "asyncio.Task[Mapping[str, list[float]]]"
) -> Plateau:
    """Looks at the server as long as the provider holds all calls."""
    looks, busy, memory = 0, 0, 0
    while not calling.done():
        held = await asyncio.to_thread(look, upstream)
        if held["now"] == CALLS:
            looks += 1
            busy += await connection.fetchval(_BUSY)
            memory = max(memory, server.memory_kib)
        await asyncio.sleep(LOOK_SECONDS)
    return Plateau(looks, busy, memory)


def look(upstream: Server) -> Mapping[str, int]:
    with urlopen(f"{upstream.url}/held") as answer:
        held: Mapping[str, int] = json.load(answer)
        return held


def call(server: Server, key: str, count: int, seconds: float) -> Mapping[str, list[float]]:
    """So many callers within so many seconds, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.in_flight", "call", server.url, key, str(count), str(seconds)]
    done = subprocess.run(command, cwd=BACKEND, capture_output=True, check=True)
    answered: Mapping[str, list[float]] = json.loads(done.stdout)
    return answered


async def call_all(url: str, key: str, count: int, seconds: float) -> None:
    """Connects everybody, then lets one after the other ask, and prints what each was answered, and after how long."""
    body = json.dumps({"prompt": "A cute banana", "size": f"{SIDE}x{SIDE}"})
    head = f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    request = f"POST /v1/generate HTTP/1.1\r\nHost: pictures.test\r\n{head}\r\n\r\n{body}".encode()
    room, connections = asyncio.Semaphore(CONNECTING), list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()

    async def connect() -> None:
        async with room:
            connections.append(await asyncio.open_connection("127.0.0.1", urlsplit(url).port))

    async def ask(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, float]:
        await asyncio.sleep(seconds * number / count)
        sent = time.monotonic()
        writer.write(request)
        answer_head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(answer_head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        return int(answer_head.split(b" ", 2)[1]), time.monotonic() - sent

    await asyncio.gather(*(connect() for _ in range(count)))
    answers = await asyncio.gather(*(ask(number, *each) for number, each in enumerate(connections)))
    statuses, waited = zip(*answers, strict=True)
    print(json.dumps({"statuses": statuses, "seconds": waited}))


def row(
    name: str,
    answered: Mapping[str, list[float]],
    plateau: Plateau,
    cost: Sequence[str],
    recorded: Sequence[int],
) -> str:
    added = sorted(seconds - PROVIDER_SECONDS for seconds in answered["seconds"])
    cells = [
        name,
        ", ".join(f"{count:,} of {status}" for status, count in Counter(answered["statuses"]).items()),
        f"{statistics.median(added):.2f}",
        f"{added[-1]:.2f}",
        f"{plateau.looks}",
        f"{plateau.busy_connections}",
        *cost,
        ", ".join(f"{count:,}" for count in recorded),
    ]
    return f"| {' | '.join(cells)} |"


def _descriptors_max() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


if __name__ == "__main__":
    main()
