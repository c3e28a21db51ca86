"""`make bench-money`, third part: what a price costs a call over HTTP, for one account and for a thousand.

Two servers of four workers, each with a Redis and, in one PostgreSQL, a database of its own, have the same priced model
drawn by the stub. With BILLING=off a call is one statement, which records its image as delivered. With BILLING=on it is
two, one after the other: the first holds the price, the second charges it. The servers take turns, so that a machine
that changes its pace changes both. At the end money has to agree with what was delivered.
"""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from typing import NamedTuple

from app.catalogue.prices import format_amount
from app.core.db import connect_for_writing
from benchmarks.machine import (
    BACKEND,
    WIDE_OPEN,
    Load,
    Server,
    database,
    free_port,
    load,
    machine,
    parent_of,
    serving,
    tool,
    tree_cpu_seconds,
)
from benchmarks.money import ACCOUNTS, PRICE, fill, raw_key
from tests.chaos.load import lines_to_every_worker
from tests.chaos.workers import Workers
from tests.harness import fresh_database
from tests.redis_server import redis_server

ROUNDS, SECONDS = 5, 3
WARM_UP_SECONDS = 3
"""Before each measurement: a worker looks up each caller that it has not looked up for ten seconds."""
WORKERS, CONNECTIONS = 4, 128
PRICES = {"off": 0, "on": PRICE}
"""What a call costs, by BILLING."""

_MODELS = f"""
default = "model"
currency = "USD"
[models.model]
price = "{format_amount(PRICE)}"
[[models.model.routes]]
provider = "stub"
"""
_SUMS = """
select count(*) filter (where status = 'delivered') as delivered, count(lease) as held_before,
  count(*) filter (where status <> 'delivered') as undelivered,
  (select sum(charged) from balances)::bigint as charged, (select sum(held) from balances)::bigint as held
from generations where provider = 'stub'
"""


class Round(NamedTuple):
    """What one measurement came to. Processor time is in microseconds for a call."""

    load: Load
    server: float
    database: float


@dataclass
class Side:
    """A server, everything that was sent to it, and what was measured, by the number of accounts that call."""

    price: int
    settings: Mapping[str, str]
    server: Server
    loads: list[Load] = field(default_factory=list)
    rounds: dict[int, list[Round]] = field(default_factory=lambda: {accounts: [] for accounts in ACCOUNTS})

    def measure(self, accounts: int, postmaster: int) -> None:
        self._load(accounts, WARM_UP_SECONDS)
        before = self.server.tree_cpu_seconds, tree_cpu_seconds(postmaster)
        done = self._load(accounts, SECONDS)
        after = self.server.tree_cpu_seconds, tree_cpu_seconds(postmaster)
        cpu = [1e6 * (b - a) / done.requests for a, b in zip(before, after, strict=True)]
        self.rounds[accounts].append(Round(done, *cpu))

    def _load(self, accounts: int, seconds: int) -> Load:
        keys = [raw_key(number) for number in range(accounts)]
        self.loads.append(load(self.server.url, keys=keys, seconds=seconds, connections=CONNECTIONS))
        return self.loads[-1]


FIGURES: Mapping[str, Callable[[Round], float]] = {
    "calls/s": lambda each: each.load.per_second,
    "p50 ms": lambda each: each.load.p50,
    "p99 ms": lambda each: each.load.p99,
    "server's CPU, us a call": lambda each: each.server,
    "PostgreSQL's CPU, us a call": lambda each: each.database,
}


def main() -> None:
    tool()
    with ExitStack() as databases:
        url = databases.enter_context(database())
        asyncio.run(fill(url))
        postmaster = asyncio.run(_find_postmaster(url))
        urls = {billing: databases.enter_context(fresh_database(url, copy_of=url)) for billing in PRICES}
        with ExitStack() as servers:
            sides = [_start(servers, url, billing) for billing, url in urls.items()]
            for number in range(ROUNDS):
                for accounts in ACCOUNTS:
                    for side in sides if number % 2 else reversed(sides):
                        side.measure(accounts, postmaster)
                print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
        _report(*sides)
        for side in sides:  # their servers have ended, and with them every call
            _prove_sums(side, asyncio.run(_find_sums(side)))


def _start(stack: ExitStack, url: str, billing: str) -> Side:
    folder, port = stack.enter_context(TemporaryDirectory(prefix="bench-")), free_port()
    models = Path(folder, "models.toml")
    models.write_text(_MODELS)
    settings = {
        **WIDE_OPEN,
        "DATABASE_URL": url,
        "REDIS_URL": stack.enter_context(redis_server(Path(folder))).url,
        "SECRET_KEY": token_urlsafe(48),
        "DATA_DIR": folder,
        "MODELS_FILE": str(models),
        "BILLING": billing,
        "WORKERS": str(WORKERS),
    }
    server = stack.enter_context(serving("app.cli", "serve", port=port, PORT=str(port), **settings))
    asyncio.run(_wait_for_all(Workers(server.process.pid, port=port, size=WORKERS)))
    return Side(PRICES[billing], settings, server)


async def _wait_for_all(workers: Workers) -> None:
    async with lines_to_every_worker(workers, [], each=1):
        pass


async def _find_postmaster(url: str) -> int:
    connection = await connect_for_writing(url)
    found = parent_of(connection.get_server_pid())
    await connection.close()
    return found


def _report(unpriced: Side, priced: Side) -> None:
    print(f"\n{machine()}\n{ROUNDS} rounds of {SECONDS} s, interleaved, {CONNECTIONS} connections, {WORKERS} workers")
    print("Medians, and of the ratios within each round\n")
    print("| accounts | | without a price | with a price | ratio |\n|---|---|---|---|---|")
    for accounts in ACCOUNTS:
        for name, figure in FIGURES.items():
            without, with_ = [[figure(each) for each in side.rounds[accounts]] for side in (unpriced, priced)]
            ratio = statistics.median(a / b for a, b in zip(with_, without, strict=True))
            medians = f"{statistics.median(without):,.0f} | {statistics.median(with_):,.0f}"
            print(f"| {accounts:,} | {name} | {medians} | {ratio:.2f} |")


async def _find_sums(side: Side) -> Mapping[str, int]:
    connection = await connect_for_writing(side.settings["DATABASE_URL"])
    sums = dict(await connection.fetchrow(_SUMS) or {})
    await connection.close()
    return sums


def _prove_sums(side: Side, sums: Mapping[str, int]) -> None:
    """Raises ValueError where a call failed or its image is not delivered, where what was charged is not the price of
    what was delivered, and where images were held before without a price, or not held with one. Raises
    CalledProcessError where `billing reconcile` finds a difference.
    """
    answered, errors = sum(each.requests for each in side.loads), sum(each.errors for each in side.loads)
    delivered = sums["delivered"]
    expected = {
        "delivered": delivered,
        "held_before": delivered if side.price else 0,
        "undelivered": 0,
        "charged": side.price * delivered,
        "held": 0,
    }
    # At the end of a load wrk hangs up; a call that is on its way is carried out nevertheless.
    if errors or sums != expected or not 0 <= delivered - answered <= CONNECTIONS * len(side.loads):
        raise ValueError(errors, answered, sums)
    print(f"\n{answered:,} answered, {delivered:,} delivered, {format_amount(sums['charged'])} charged", flush=True)
    command = [sys.executable, "-m", "app.cli", "billing", "reconcile"]
    subprocess.run(command, cwd=BACKEND, env=dict(side.settings), check=True)


if __name__ == "__main__":
    main()
