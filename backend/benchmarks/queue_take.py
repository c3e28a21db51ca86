"""`make bench-queue`, first part: what a worker's taking of jobs costs, however many wait and whoever has them.

Each case is a database of its own, and they take turns, take by take, so that a machine that changes its pace changes
all of them. Less disturbed than the time of a take are the time that the database's process was at work, and the pages
that a take looked at. With `--explain` the plan of each case is printed too.
"""

import argparse
import asyncio
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from app import migrations
from app.core.db import connect_for_writing
from app.core.embedded import embedded_postgres
from app.generations.ledger.statements import DISCARD_PLANS, QUERIES
from benchmarks.machine import machine
from benchmarks.queue_rows import KeyNumber, connect, fill, spread
from tests.harness import fresh_database, on_server

TAKES, WARM_UP_TAKES, JOBS = 60, 20, 10
ACCOUNTS = 1000
TAKEN_BEFORE, TAKEN_AT_ONCE = 100_000, 1000
_TAKE = QUERIES["take_jobs"]
# No case is cleaned up while others are measured, and none's pages are pushed out of memory by the others' pages.
_SETTINGS = "alter system set autovacuum = off", "alter system set shared_buffers = '2GB'"
_CAP_ALL_BUT_TEN = "update lanes set running = 16, most = 16 where account_id >= 'acc_00000000000000000010'"
_CAP_FIRST_KEY = """
update api_keys set generate_concurrency = 16 where id = 'key_00000000000000000000';
update lane_keys set running = 16 where key_id = 'key_00000000000000000000';
update lanes set running = 16 where account_id = 'acc_00000000000000000000'
"""


@dataclass
class Case:
    """What waits, and what was delivered before; `prepare` is SQL that is run then. Times of takes in milliseconds."""

    name: str
    waiting: Mapping[KeyNumber, int]
    prepare: str = "vacuum analyze"
    is_planned_before: bool = False
    """Whether the statement was planned while the tables were empty, as in a new deployment, and once since then."""
    delivered: Mapping[KeyNumber, int] = field(default_factory=dict)
    taken_before: int = 0
    """With no vacuum since then; every account's dead entries have been passed once."""
    under_old_snapshot: bool = False
    times: list[float] = field(default_factory=list)
    works: list[float] = field(default_factory=list)
    jobs: int = 0
    plan: Sequence[str] = ()

    async def open(self, url: str) -> None:
        self._owner, self._worker = await connect(url), await connect_for_writing(url)
        if self.is_planned_before:
            await self._take()
        await fill(self._owner, self.waiting, self.delivered)
        for statement in self.prepare.split(";"):
            await self._owner.execute(statement)
        if self.is_planned_before:
            await self._worker.execute(DISCARD_PLANS.text)  # as every sweep does
        if self.under_old_snapshot:
            await self._owner.execute("begin isolation level repeatable read")
            await self._owner.execute("select from lanes limit 1")
        for _ in range(self.taken_before // TAKEN_AT_ONCE):
            await self._take(jobs_max=TAKEN_AT_ONCE)
        for _ in range(ACCOUNTS // JOBS if self.taken_before else WARM_UP_TAKES):
            await self._take()

    async def measure(self) -> None:
        work, start = self._work(), perf_counter()
        self.jobs += await self._take()
        self.times.append((perf_counter() - start) * 1e3)
        self.works.append(self._work() - work)

    async def explain(self) -> None:
        async with self._worker.transaction():
            explain = "explain (analyze, buffers, costs off)"
            rows = await self._worker.fetch(f"{explain} {_TAKE.text}", *self._values(JOBS))
            self.plan = [line for (line,) in rows]

    @property
    def pages(self) -> int:
        """Looked at by a take."""
        buffers = next(line for line in self.plan if "Buffers" in line)
        return sum(map(int, re.findall(r"(?:hit|read)=(\d+)", buffers)))

    async def close(self) -> None:
        await self._worker.close()
        await self._owner.close()

    async def _take(self, jobs_max: int = JOBS) -> int:
        return len(await self._worker.fetch(_TAKE.text, *self._values(jobs_max)))

    def _values(self, jobs_max: int) -> Sequence[Any]:
        caps = {"account_most": 1_000_000, "key_most": 1_000_000}
        return _TAKE.arguments({"class": "now", "jobs_max": jobs_max, "lease_seconds": 30.0, **caps})

    def _work(self) -> float:
        schedule = Path(f"/proc/{self._worker.get_server_pid()}/schedstat").read_text()
        return int(schedule.split()[0]) / 1e6


def cases() -> Sequence[Case]:
    many = spread(100_000, ACCOUNTS)
    ten = spread(50_000, 10)
    return [
        Case("1,000 wait, 99,000 are delivered", spread(1000, ACCOUNTS), delivered=spread(99_000, ACCOUNTS)),
        Case("10,000 wait, 90,000 are delivered", spread(10_000, ACCOUNTS), delivered=spread(90_000, ACCOUNTS)),
        Case("100,000 wait", many),
        Case("1,000 wait, and there are no others", spread(1000, ACCOUNTS)),
        Case("10,000 wait, and there are no others", spread(10_000, ACCOUNTS)),
        Case("100,000, not analysed", many, "select"),
        Case("100,000, planned on empty tables, and again by a sweep", many, "select", is_planned_before=True),
        Case("100,000, one account has half", {**spread(50_000, ACCOUNTS), KeyNumber(0): 50_000}),
        Case("100,000, 990 accounts are at their bound", many, f"vacuum analyze; {_CAP_ALL_BUT_TEN}"),
        Case("50,000 of ten accounts", ten),
        Case(
            "the same, and 50,000 of a key at its bound before one of them",
            {**ten, KeyNumber(0): 50_000, KeyNumber(0, 1): 5000},
            f"vacuum analyze; {_CAP_FIRST_KEY}",
        ),
        Case("100,000, after as many were taken", spread(200_000, ACCOUNTS), taken_before=TAKEN_BEFORE),
        Case(
            "the same, under a snapshot from before",
            spread(200_000, ACCOUNTS),
            taken_before=TAKEN_BEFORE,
            under_old_snapshot=True,
        ),
    ]


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.queue_take")
    options.add_argument("--explain", action="store_true", help="print how PostgreSQL carries each case out")
    chosen, all_cases = options.parse_args(), cases()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        with embedded_postgres(folder) as first:
            migrations.upgrade(first)
            for statement in _SETTINGS:
                on_server(first, statement)
        server = stack.enter_context(embedded_postgres(folder))
        urls = [stack.enter_context(fresh_database(server, copy_of=server)) for _ in all_cases]
        asyncio.run(_measure(dict(zip(urls, all_cases, strict=True))))
    print(f"{machine()}\n{TAKES} takes of {JOBS} jobs, interleaved; medians\n")
    print("| what waits | ms a take | ms at work | of the first | pages | jobs |\n|---|---|---|---|---|---|")
    for case in all_cases:
        work, wall = statistics.median(case.works), statistics.median(case.times)
        ratio = statistics.median(a / b for a, b in zip(case.works, all_cases[0].works, strict=True))
        print(f"| {case.name} | {wall:.2f} | {work:.2f} | {ratio:.2f} | {case.pages} | {case.jobs} |")
    if chosen.explain:
        for case in all_cases:
            print("\n".join(["", case.name, *case.plan]))


async def _measure(cases_by_url: Mapping[str, Case]) -> None:
    for url, case in cases_by_url.items():
        await case.open(url)
        print(f"prepared: {case.name}", file=sys.stderr)
    for _ in range(TAKES):
        for case in random.sample(list(cases_by_url.values()), len(cases_by_url)):
            await case.measure()
    for case in cases_by_url.values():
        await case.explain()
        await case.close()


if __name__ == "__main__":
    main()
