"""`make bench-queue`, second part: four workers draw 100,000 jobs of 1,000 accounts, one of which has half of them.

The provider is a stand-in on loopback that takes 50 ms. `--jobs 4000 --accounts 100` runs short.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from time import monotonic

import asyncpg
from benchmarks import provider
from benchmarks.in_flight import look
from benchmarks.machine import BACKEND, Server, database, machine, parent_of, tree_cpu_seconds
from benchmarks.queue_rows import SIDE, KeyNumber, connect, fill, spread
from tests.generations.jobs.lanes import wrong_lanes

JOBS, ACCOUNTS, WORKERS, PROVIDER_SECONDS = 100_000, 1000, 4, 0.05
WEIGHT = 10
"""How many jobs the account with half of them hands over whenever it is its turn; the others one each."""
BOUND = 128
"""What an account may have running: all hands of the workers, so that weights alone decide."""
LOOK_SECONDS, LANES_EVERY = 1.0, 10
STOP_SECONDS = 30
_BIG = KeyNumber(0)

_LEFT = "select coalesce(sum(waiting + running), 0)::bigint from lanes"
_WEIGH = "update lanes set weight = $2 where account_id = $1"
_OUTCOME = """
select count(*) as jobs, count(*) filter (where status = 'delivered') as delivered, max(attempts) as attempts,
  (select sum(pictures) from usage)::bigint as counted, count(distinct account_id) as accounts
from generations
"""
_COMMITS = "select xact_commit from pg_stat_database where datname = current_database()"
_DELIVERED = """
with others as (select max(delivered_at) as until from generations where account_id <> $1)
select floor(extract(epoch from delivered_at - min(delivered_at) over ()))::int as second, account_id = $1 as is_own
from generations, others where delivered_at <= until order by 1
"""


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.queue_drain")
    options.add_argument("--jobs", type=int, default=JOBS)
    options.add_argument("--accounts", type=int, default=ACCOUNTS)
    chosen = options.parse_args()
    waiting = {**spread(chosen.jobs // 2, chosen.accounts - 1, first=1), _BIG: chosen.jobs // 2}
    with ExitStack() as stack:
        url = stack.enter_context(database())
        upstream = stack.enter_context(provider.provider(side=SIDE, delay_seconds=PROVIDER_SECONDS))
        settings = {
            **provider.settings(upstream, side=SIDE),
            "DATABASE_URL": url,
            "DATA_DIR": stack.enter_context(TemporaryDirectory(prefix="bench-pictures-")),
            "SECRET_KEY": token_urlsafe(48),
            "JOBS_PER_ACCOUNT": str(BOUND),
            "GENERATE_CONCURRENCY_PER_KEY": str(BOUND),
        }
        asyncio.run(_drain(url, upstream, settings, waiting))


async def _drain(url: str, upstream: Server, settings: Mapping[str, str], waiting: Mapping[KeyNumber, int]) -> None:
    connection = await connect(url)
    await fill(connection, waiting)
    await connection.execute(_WEIGH, _BIG.account_id, WEIGHT)
    await connection.execute("vacuum analyze")
    commits, wrong, started = await connection.fetchval(_COMMITS), 0, monotonic()
    database_before = _database_cpu_seconds(connection)
    looks: list[Sequence[int]] = []
    with _workers(settings) as workers:
        while left := await connection.fetchval(_LEFT):
            looks.append([worker.memory_kib for worker in workers])
            if len(looks) % LANES_EVERY == 0:
                wrong += len(await wrong_lanes(connection))
                print(f"{left:,} left after {monotonic() - started:.0f} s", file=sys.stderr)
            await asyncio.sleep(LOOK_SECONDS)
        seconds = monotonic() - started
        cpu = sum(worker.cpu_seconds for worker in workers), _database_cpu_seconds(connection) - database_before
        wrong += len(await wrong_lanes(connection))
        jobs = sum(waiting.values())
        commits = await connection.fetchval(_COMMITS) - commits
    print(f"\n{machine()}\n{jobs:,} jobs of {len({key.account for key in waiting}):,} accounts, {WORKERS} workers\n")
    print(f"seconds: {seconds:.0f}; jobs a second: {jobs / seconds:.0f}; transactions a job: {commits / jobs:.2f}")
    print(f"processor ms a job: {1e3 * cpu[0] / jobs:.2f} in the workers, {1e3 * cpu[1] / jobs:.2f} in PostgreSQL")
    outcome = await connection.fetchrow(_OUTCOME)
    print(f"rows: {dict(outcome or {})}; calls to the provider: {look(upstream)['calls']:,}; wrong lanes: {wrong}")
    await _report_shares(connection, waiting)
    _report_memory(looks)
    await connection.close()


async def _report_shares(connection: asyncpg.Connection, waiting: Mapping[KeyNumber, int]) -> None:
    """What the account with half of them had of what was delivered while all others waited, in every minute and in
    every ten seconds, whichever second they begin with.
    """
    due = WEIGHT / (WEIGHT + len(waiting) - 1)
    rows = await connection.fetch(_DELIVERED, _BIG.account_id)
    of_all, own = Counter(each["second"] for each in rows), Counter(each["second"] for each in rows if each["is_own"])
    last = rows[-1]["second"]  # which is not whole
    for seconds in (60, 10):
        begins = range(last - seconds + 1)
        shares = [_in_window(own, each, seconds) / _in_window(of_all, each, seconds) / due for each in begins]
        if shares:
            told = f"median {statistics.median(shares):.2f}, least {min(shares):.2f}, most {max(shares):.2f}"
            told += f", of {len(shares)} that begin a second apart"
            print(f"share of the account with half, of the {due:.4f} due to it, in {seconds} s: {told}")


def _in_window(delivered: Mapping[int, int], begin: int, seconds: int) -> int:
    return sum(delivered[each] for each in range(begin, begin + seconds))


def _report_memory(looks: Sequence[Sequence[int]]) -> None:
    """Of each worker, in the first quarter of the time and in the last; the start is left out."""
    quarter = max(len(looks) // 4, 1)
    for number, memory in enumerate(zip(*looks, strict=True)):
        first, last = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
        print(f"memory of worker {number + 1}: {first:,.0f} KiB, then {last:,.0f} KiB ({last / first:.3f})")


@contextmanager
def _workers(settings: Mapping[str, str]) -> Iterator[Sequence[Server]]:
    """So many `nanobanana work`, stopped at the end."""
    command, environment = [sys.executable, "-m", "app.cli", "work"], {**os.environ, **settings}
    quiet = subprocess.DEVNULL
    processes = [
        subprocess.Popen(command, cwd=BACKEND, env=environment, stdout=quiet, stderr=quiet) for _ in range(WORKERS)
    ]
    try:
        yield [Server("", process) for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(STOP_SECONDS)


def _database_cpu_seconds(connection: asyncpg.Connection) -> float:
    """Of all processes of the server that this connection leads to."""
    return tree_cpu_seconds(parent_of(connection.get_server_pid()))


if __name__ == "__main__":
    main()
