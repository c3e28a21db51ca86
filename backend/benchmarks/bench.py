"""`make bench`: our generate route, without and with Redis, the bare FastAPI route and the tutorial way, in one run."""

import asyncio
import json
import secrets
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
from app.core.limit_settings import LimitSettings
from benchmarks.machine import (
    ACCOUNT,
    Load,
    Server,
    database,
    free_port,
    load,
    machine,
    median_ratio,
    new_key,
    serving,
    tool,
)
from sqlalchemy.engine import make_url
from tests.redis_server import redis_server

NAMES = ("ours", "ours on Redis", "bare", "tutorial")
ROUNDS = 5
SECONDS = 6
WARM_UP_SECONDS = 2
LOGINS = 50
WIDE_OPEN = "1000000/second"


def main() -> None:
    tool()
    with ExitStack() as stack:
        url = stack.enter_context(database())
        servers = start(stack, url)
        key = new_key(servers["ours"].url)
        for server in servers.values():
            load(server.url, keys=[key], seconds=WARM_UP_SECONDS)
        rounds: defaultdict[str, list[Load]] = defaultdict(list)
        cpu: defaultdict[str, list[float]] = defaultdict(list)
        transactions, memory = [], [servers["ours"].memory_kib]
        tails, login_rates = [], []
        for number in range(ROUNDS):
            for name, server in servers.items():
                before, cpu_before = asyncio.run(count_transactions(url)), server.cpu_seconds
                rounds[name].append(load(server.url, keys=[key], seconds=SECONDS))
                cpu[name].append(1e6 * (server.cpu_seconds - cpu_before) / rounds[name][-1].requests)
                if name == "ours":
                    spent = asyncio.run(count_transactions(url)) - before
                    transactions.append(1000 * spent / rounds[name][-1].requests)
                    memory.append(server.memory_kib)
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        for _ in range(ROUNDS):  # last, since passwords are hashed in 19 MiB each, which shows in the memory
            quiet, busy, logins = among_logins(servers["ours"], key)
            tails.append(busy.p99 / quiet.p99)
            login_rates.append(logins.per_second)
    report(rounds, cpu, transactions, memory)
    rate, tail = statistics.median(login_rates), statistics.median(tails)
    print(f"p99 of generate among {LOGINS} logins at a time ({rate:.0f} a second), against without: {tail:.2f}")


def among_logins(server: Server, key: str) -> tuple[Load, Load, Load]:
    """Generate alone; then generate and logins at once: what each came to."""
    quiet = load(server.url, keys=[key], seconds=SECONDS)
    with ThreadPoolExecutor() as threads:
        logins = threads.submit(
            load,
            server.url,
            keys=[""],
            seconds=SECONDS,
            connections=LOGINS,
            path="/v1/auth/login",
            bodies=[json.dumps(ACCOUNT)],
        )
        busy = load(server.url, keys=[key], seconds=SECONDS)
        return quiet, busy, logins.result()


def start(stack: ExitStack, url: str, *, names: Sequence[str] = NAMES) -> dict[str, Server]:
    """The servers to be compared, each in one process."""
    ports = dict(zip(NAMES, [free_port() for _ in NAMES], strict=True))
    uvicorn = ("uvicorn", "--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools")
    ours = {
        "DATABASE_URL": url,
        "SECRET_KEY": secrets.token_urlsafe(48),
        "GENERATE_CONCURRENCY_PER_KEY": "1000000",
        **{name.upper(): WIDE_OPEN for name in LimitSettings.model_fields if "_limit_" in name and "_mode" not in name},
    }

    def serve(name: str, **settings: str) -> Callable[[], AbstractContextManager[Server]]:
        return lambda: serving("app.cli", "serve", port=ports[name], PORT=str(ports[name]), **ours, **settings)

    def run(name: str, app: str, **settings: str) -> Callable[[], AbstractContextManager[Server]]:
        return lambda: serving(*uvicorn, app, "--port", str(ports[name]), port=ports[name], **settings)

    ways = {
        "ours": serve("ours"),
        "ours on Redis": serve("ours on Redis", REDIS_URL=_redis_url(stack) if "ours on Redis" in names else ""),
        "bare": run("bare", "benchmarks.bare:app"),
        "tutorial": run("tutorial", "benchmarks.tutorial:app", DATABASE_URL=url),
    }
    return {name: stack.enter_context(ways[name]()) for name in names}


def _redis_url(stack: ExitStack) -> str:
    folder = stack.enter_context(TemporaryDirectory(prefix="bench-redis-"))
    return stack.enter_context(redis_server(Path(folder))).url


async def count_transactions(url: str) -> int:
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
    await asyncio.sleep(1.5)  # backends report what they did within a second
    count: int = await connection.fetchval(
        "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
    )
    await connection.close()
    return count


def report(
    rounds: Mapping[str, Sequence[Load]],
    cpu: Mapping[str, Sequence[float]],
    transactions: Sequence[float],
    memory: Sequence[int],
) -> None:
    print(f"\n{machine()}\n{ROUNDS} rounds of {SECONDS} s, interleaved, 32 connections, one worker; medians\n")
    print("| what | requests/s | of bare | p50 ms | p99 ms | p99 of bare | server's CPU, us a request | errors |")
    print("|---|---|---|---|---|---|---|---|")
    for name, loads in rounds.items():
        speed = median_ratio(loads, rounds["bare"], "per_second")
        tail = median_ratio(loads, rounds["bare"], "p99")
        told = [statistics.median(getattr(each, field) for each in loads) for field in ("per_second", "p50", "p99")]
        errors = sum(each.errors for each in loads)
        row = f"{told[0]:,.0f} | {speed:.2f} | {told[1]:.1f} | {told[2]:.1f} | {tail:.2f}"
        print(f"| {name} | {row} | {statistics.median(cpu[name]):.0f} | {errors} |")
    print(f"\nours on Redis : ours = {median_ratio(rounds['ours on Redis'], rounds['ours'], 'per_second'):.2f}")
    print(f"ours : tutorial = {median_ratio(rounds['ours'], rounds['tutorial'], 'per_second'):.1f}")
    print(f"transactions per 1,000 requests: {statistics.median(transactions):.0f}")
    print(f"memory of our process, KiB, after the warm-up and after each round: {', '.join(map(str, memory))}")


if __name__ == "__main__":
    main()
