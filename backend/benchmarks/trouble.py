"""`make bench-limits`: what callers feel while Redis is in trouble, and after it, against the same run before it."""

import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.request import Request, urlopen

import asyncpg
from benchmarks.machine import WIDE_OPEN, Key, Server, database, free_port, machine, new_keys, serving
from sqlalchemy.engine import make_url
from tests.chaos.load import Call, Line, lines_to_every_worker
from tests.chaos.workers import Workers
from tests.redis_server import RedisServer, redis_server

WORKERS = 4
ROUNDS = 3
LIMIT = 10  # an hour
LINES, PAUSE_SECONDS = 4, 0.04  # to each worker
BEFORE_SECONDS, RETURN_SECONDS, AFTER_SECONDS = 1.5, 1.5, 1.5
TROUBLE_SECONDS = (
    2.1,
    2.25,
    2.4,
)  # Redis is tried at fixed times from the beginning on: its return meets several phases
LOOK_SECONDS = 0.03
ATTEMPTS = 100
METRICS_TOKEN = secrets.token_hex(16)


def say(*commands: str) -> Callable[[RedisServer], None]:
    return lambda redis: [redis.command(*command.split()) for command in commands].clear()


TROUBLES: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "stopped": (RedisServer.stop, RedisServer.start),
    "frozen": (RedisServer.freeze, RedisServer.thaw),
    "read-only": (say("REPLICAOF 127.0.0.1 1"), say("REPLICAOF NO ONE")),
    "out of memory": (say("CONFIG SET maxmemory 1"), say("CONFIG SET maxmemory 0")),
    "flushed": (say("FLUSHALL", "SCRIPT FLUSH"), say()),
}


@dataclass(frozen=True)
class Felt:
    """What one trouble came to. Milliseconds more than before it, as (median, 99th percentile, the slowest call)."""

    before: tuple[float, float, float]
    first_second: tuple[float, float, float]
    later: tuple[float, float, float]
    afterwards: tuple[float, float, float]
    server_errors: int
    passed: int
    shared_again_seconds: float
    then_passed: int


@dataclass(frozen=True)
class Ground:
    """Everything that a trouble meets."""

    server: Server
    redis: RedisServer
    wide: Key
    lines: Sequence[Sequence[Line]]
    journal: list[Call]


def main() -> None:
    felt: defaultdict[str, list[Felt]] = defaultdict(list)
    with ExitStack() as stack:
        url = stack.enter_context(database())
        redis = stack.enter_context(redis_server(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        settings = {
            **WIDE_OPEN,
            "DATABASE_URL": url,
            "REDIS_URL": redis.url,
            "SECRET_KEY": secrets.token_urlsafe(48),
            "METRICS_TOKEN": METRICS_TOKEN,
            "WORKERS": str(WORKERS),
        }
        port = free_port()
        server = stack.enter_context(serving("app.cli", "serve", port=port, PORT=str(port), **settings))
        asyncio.run(run(url, server, redis, felt))
    report(felt)


async def run(url: str, server: Server, redis: RedisServer, felt: defaultdict[str, list[Felt]]) -> None:
    wide, *narrow = await asyncio.to_thread(new_keys, server.url, 1 + 2 * (1 + ROUNDS) * len(TROUBLES))
    await limit(url, narrow)
    spare, journal = iter(narrow), list[Call]()
    workers = Workers(server.process.pid, port=make_url(server.url).port or 0, size=WORKERS)
    async with lines_to_every_worker(workers, journal, each=LINES + 1) as lines:
        ground = Ground(server, redis, wide, lines, journal)
        for number in range(ROUNDS + 1):
            for name, (begin, end) in TROUBLES.items():
                if not number and name != "stopped":
                    continue  # one trouble to warm up
                came_to = await live_through(
                    ground, [next(spare), next(spare)], begin=begin, end=end, seconds=TROUBLE_SECONDS[number % 3]
                )
                felt[name] += [came_to] if number else []
            print(f"round {number} of {ROUNDS}", file=sys.stderr)


async def limit(url: str, keys: Iterable[Key]) -> None:
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
    statement = "update api_keys set generate_limit = $1 where id = any($2)"
    await connection.execute(statement, f"{LIMIT}/hour", [key.id for key in keys])
    await connection.close()


async def live_through(
    ground: Ground,
    narrow: Sequence[Key],
    *,
    begin: Callable[[RedisServer], None],
    end: Callable[[RedisServer], None],
    seconds: float,
) -> Felt:
    """One trouble under steady traffic; of two keys, one is called as soon as it begins, the other when it is over."""
    key, another = narrow
    ground.journal.clear()
    over = asyncio.Event()
    callers = [asyncio.create_task(call_on(line, ground.wide, over)) for *lines, _ in ground.lines for line in lines]
    await asyncio.sleep(BEFORE_SECONDS)
    began = time.monotonic()
    await asyncio.to_thread(begin, ground.redis)
    callers += [asyncio.create_task(call_on(last, key, over)) for *_, last in ground.lines]
    await asyncio.sleep(seconds)
    ended = time.monotonic()
    passed = count_passed(ground.journal, key)
    await asyncio.to_thread(end, ground.redis)
    last_own = await last_own_decision(ground.server.url, ended)
    shared = time.monotonic()
    await asyncio.sleep(AFTER_SECONDS)
    over.set()
    await asyncio.gather(*callers)
    calls = [call for call in ground.journal if call.key_id == ground.wide.id]
    before = milliseconds(calls, 0, began)
    first, later = milliseconds(calls, began, began + 1), milliseconds(calls, began + 1, ended)
    await attempt(ground, another)
    return Felt(
        more(before, [0.0] * 2),
        more(first, before),
        more(later, before),
        more(milliseconds(calls, shared, shared + AFTER_SECONDS), before),
        sum(call.status >= 500 or call.status == 0 for call in ground.journal),
        passed,
        max(last_own - ended, 0),
        count_passed(ground.journal, another),
    )


async def call_on(line: Line, key: Key, over: asyncio.Event) -> None:
    while not over.is_set():
        await line.ask(key, "A cute banana")
        await asyncio.sleep(PAUSE_SECONDS)


async def attempt(ground: Ground, key: Key) -> None:
    everyone = list(chain(*ground.lines))
    for _ in range(ATTEMPTS // len(everyone)):
        await asyncio.gather(*(line.ask(key, "A cute banana") for line in everyone))


async def last_own_decision(url: str, ended: float) -> float:
    """When a process was last seen to decide by itself; `ended` if that was before it."""
    last, count = ended, await asyncio.to_thread(own_decisions, url)
    while time.monotonic() < ended + RETURN_SECONDS:
        await asyncio.sleep(LOOK_SECONDS)
        now = await asyncio.to_thread(own_decisions, url)
        if now != count:
            last, count = time.monotonic(), now
    return last


def own_decisions(url: str) -> float:
    with urlopen(Request(f"{url}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})) as answer:
        [line] = [each for each in answer if each.startswith(b"nanobanana_limit_own_decisions_total ")]
        return float(line.split()[1])


def count_passed(journal: Iterable[Call], key: Key) -> int:
    return sum(call.status == 200 and call.key_id == key.id for call in journal)


def milliseconds(calls: Iterable[Call], begin: float, end: float) -> list[float]:
    """How long those calls took that were on their way in a span of time."""
    return [1000 * (call.received - call.sent) for call in calls if call.received >= begin and call.sent < end]


def more(some: Sequence[float], before: Sequence[float]) -> tuple[float, float, float]:
    tails = [statistics.quantiles(each, n=100)[98] for each in (some, before)]
    usual = statistics.median(before)
    return statistics.median(some) - usual, tails[0] - tails[1], max(some) - usual


def report(felt: dict[str, list[Felt]]) -> None:
    print(f"\n{machine()}\n{WORKERS} workers, {WORKERS * LINES} callers, {ROUNDS} rounds; medians of rounds (the most)")
    print("Milliseconds per call: median, 99th percentile, most; after `before`, how much more than that\n")
    print("| Redis | before | in the first second | later | after its return", end="")
    print(" | 5xx | pass, limit 10 | shared again after s | then pass |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, rounds in felt.items():
        latencies = (latency([getattr(each, phase) for each in rounds]) for phase in PHASES)
        passed, then = [each.passed for each in rounds], [each.then_passed for each in rounds]
        errors, seconds = sum(each.server_errors for each in rounds), [each.shared_again_seconds for each in rounds]
        counts = f"{errors} | {max(passed)} | {statistics.median(seconds):.2f} ({max(seconds):.2f}) | {max(then)}"
        print(f"| {name} | {' | '.join(latencies)} | {counts} |")


PHASES = ("before", "first_second", "later", "afterwards")


def latency(rounds: Sequence[tuple[float, float, float]]) -> str:
    return ", ".join(f"{statistics.median(values):.1f} ({max(values):.1f})" for values in zip(*rounds, strict=True))


if __name__ == "__main__":
    main()
