"""`make bench-overload`: one worker, and ten times as many callers as it may work for: such as wait, such as do not."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_urlsafe
from urllib.parse import urlsplit

import asyncpg
from app.core.settings import Settings
from benchmarks.machine import (
    BACKEND,
    WIDE_OPEN,
    Key,
    Load,
    Server,
    database,
    free_port,
    load,
    machine,
    new_keys,
    serving,
    tool,
)
from sqlalchemy.engine import make_url
from tests.chaos.load import Call, Line

REQUESTS_MAX: int = Settings.model_fields["requests_max"].default
CROWD = 10 * REQUESTS_MAX
SECONDS, PEAK_SECONDS = 30, 6
RAMP_SECONDS = 20  # in which the crowd connects, some at the fifth try: what is measured begins behind it
CONNECTIONS_AT_PEAK = (32, 64, 128)
PROBES, PROBE_PAUSE_SECONDS = 32, 0.1
SETTLE_SECONDS = 5

# wrk asks for a delay before it writes, and does not say on which connection, so that one waits what another was told.
_PATIENT = """
local told, first, last = {}, 1, 0
function response(status, headers)
  if status == 503 then
    last = last + 1
    told[last] = 1000 * tonumber(headers["retry-after"])
  end
end
function delay()
  if first > last then return 0 end
  local milliseconds = told[first]
  told[first] = nil
  first = first + 1
  return milliseconds
end
"""
WAYS = {"wait as told": _PATIENT, "send on at once": ""}


@dataclass(frozen=True)
class Probed:
    """Milliseconds that single callers waited, by what they were answered."""

    pictures: Sequence[float]
    refusals: Sequence[float]
    health: Sequence[float]
    others: int


@dataclass(frozen=True)
class Overload:
    """What the crowd came to, pictures per second, what single callers felt, and the server's share of a core.

    Its memory is that before, the most meanwhile, and that afterwards.
    """

    crowd: Load
    per_second: float
    probed: Probed
    cpu_share: float
    memory_kib: Sequence[int]


def main() -> None:
    if sys.argv[1:2] == ["probe"]:
        asyncio.run(probe(sys.argv[2], Key(*sys.argv[3:5]), float(sys.argv[5])))
        return
    tool()
    port = free_port()
    with database() as url:
        settings = {"DATABASE_URL": url, "SECRET_KEY": token_urlsafe(48), "PORT": str(port), **WIDE_OPEN}
        with serving("app.cli", "serve", port=port, **settings) as server:
            measure(server, url)


def measure(server: Server, database_url: str) -> None:
    [key] = new_keys(server.url, 1)
    for connections in CONNECTIONS_AT_PEAK:
        load(server.url, keys=[key.raw], seconds=2, connections=connections)
    peaks = {
        connections: load(server.url, keys=[key.raw], seconds=PEAK_SECONDS, connections=connections)
        for connections in CONNECTIONS_AT_PEAK
    }
    peak = max(each.good_per_second for each in peaks.values())
    print(f"\n{machine()}\nOne worker, REQUESTS_MAX={REQUESTS_MAX}, {CROWD:,} connections for {SECONDS} s\n")
    for connections, each in peaks.items():
        print(f"alone, {connections} connections: {each.good_per_second:,.0f} pictures/s, p99 {each.p99:.0f} ms")
    print("\n| callers | pictures/s | of the peak | refusals/s | lost | picture ms | refusal ms | health ms |", end="")
    print(" other answers | server's CPU | memory before, most, after MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, script in WAYS.items():
        print(row(name, peak, overload(server, database_url, key, script)), flush=True)


def overload(server: Server, database_url: str, key: Key, script: str) -> Overload:
    """Lets the crowd call, with single callers among them."""
    memory = [server.memory_kib]
    seconds = RAMP_SECONDS + SECONDS
    with ThreadPoolExecutor() as threads:
        crowd = threads.submit(load, server.url, keys=[key.raw], seconds=seconds, connections=CROWD, more=script)
        time.sleep(RAMP_SECONDS)
        began, spent, pictures = time.monotonic(), server.cpu_seconds, asyncio.run(count_pictures(database_url))
        command = [sys.executable, "-m", "benchmarks.overload", "probe", server.url, *key, str(SECONDS)]
        probed = threads.submit(subprocess.run, command, cwd=BACKEND, capture_output=True, check=True)
        most = 0
        while time.monotonic() < began + SECONDS - 1:
            most = max(most, server.memory_kib)
            time.sleep(0.5)
        took = time.monotonic() - began
        per_second = (asyncio.run(count_pictures(database_url)) - pictures) / took
        share = (server.cpu_seconds - spent) / took
    time.sleep(SETTLE_SECONDS)
    memory += [most, server.memory_kib]
    return Overload(crowd.result(), per_second, Probed(**json.loads(probed.result().stdout)), share, memory)


async def count_pictures(database_url: str) -> int:
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    count: int = await connection.fetchval("select coalesce(sum(pictures), 0)::bigint from usage")
    await connection.close()
    return count


async def probe(url: str, key: Key, seconds: float) -> None:
    """Single callers, who wait as they are told, and print how long each answer took.

    Their process goes before others: what it measures is the server's time and not its own.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    end, journal, health = time.monotonic() + seconds, list[Call](), list[float]()
    port = urlsplit(url).port or 0
    callers = [generate_on(Line(port, journal), key, end) for _ in range(PROBES)]
    await asyncio.gather(*callers, look_at_health(port, health, end))
    waited: defaultdict[int, list[float]] = defaultdict(list)
    for call in journal:
        waited[call.status].append(1000 * (call.received - call.sent))
    others = sum(len(each) for status, each in waited.items() if status not in {200, 503})
    print(json.dumps({"pictures": waited[200], "refusals": waited[503], "health": health, "others": others}))


async def generate_on(line: Line, key: Key, end: float) -> None:
    while time.monotonic() < end:
        call = await line.ask(key, "A cute banana")
        await asyncio.sleep(max(call.retry_after, PROBE_PAUSE_SECONDS))


async def look_at_health(port: int, waited: list[float], end: float) -> None:
    """Each time on a connection of its own, as load balancers do."""
    while time.monotonic() < end:
        sent = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: pictures.test\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        waited.append(1000 * (time.monotonic() - sent) if answer.startswith(b"HTTP/1.1 200") else float("inf"))
        writer.close()
        await asyncio.sleep(PROBE_PAUSE_SECONDS)


def row(name: str, peak: float, came_to: Overload) -> str:
    crowd, probed = came_to.crowd, came_to.probed
    cells = [
        name,
        f"{came_to.per_second:,.0f}",
        f"{came_to.per_second / peak:.2f}",
        f"{crowd.refused / crowd.seconds:,.0f}",
        f"{crowd.lost}",
        *map(percentiles, (probed.pictures, probed.refusals, probed.health)),
        f"{probed.others}",
        f"{came_to.cpu_share:.2f}",
        ", ".join(f"{each / 1024:.0f}" for each in came_to.memory_kib),
    ]
    return f"| {' | '.join(cells)} |"


def percentiles(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{len(values)} of them"
    return f"p50 {statistics.median(values):.0f}, p99 {statistics.quantiles(values, n=100)[98]:.0f} ({len(values)})"


if __name__ == "__main__":
    main()
