"""`make bench-queue`, second part: 100,000 jobs of 1,000 accounts wait, one of which has half, and four workers draw them.

The provider is a stand-in on loopback that takes 50 ms. `--jobs 2000 --accounts 40` runs short.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from time import monotonic

import asyncpg
from benchmarks import provider
from benchmarks.in_flight import look
from benchmarks.machine import BACKEND, Server, database, machine
from benchmarks.queue_rows import SIDE, KeyNumber, connect, fill, spread
from tests.generations.jobs.lanes import wrong_lanes

JOBS, ACCOUNTS, WORKERS, PROVIDER_SECONDS = 100_000, 1000, 4, 0.05
WEIGHT = 10
"""How many jobs the account with half of them hands over whenever it is its turn; the others one each."""
LOOK_SECONDS, LANES_EVERY = 1.0, 10
STALL_SECONDS = 60
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
_SHARES = """
with others as (select max(delivered_at) as until from generations where account_id <> $1),
window_of as (
  select floor(extract(epoch from delivered_at - min(delivered_at) over ()) / $2)::int as n, account_id, delivered_at
  from generations
)
select n, avg((account_id = $1)::int)::float8 as share from window_of, others
where delivered_at <= until - make_interval(secs => $2) group by n order by n
"""


@dataclass(frozen=True)
class Look:
    """What was seen of the workers: their memory in KiB, one number each."""

    left: int
    memory: Sequence[int]


def main() -> None:
    options = argparse.ArgumentParser(prog="benchmarks.queue_drain")
    options.add_argument("--jobs", type=int, default=JOBS)
    options.add_argument("--accounts", type=int, default=ACCOUNTS)
    chosen = options.parse_args()
    waiting = {**spread(chosen.jobs // 2, chosen.accounts - 1), _BIG: chosen.jobs // 2}
    with ExitStack() as stack:
        url = stack.enter_context(database())
        upstream = stack.enter_context(provider.provider(side=SIDE, delay_seconds=PROVIDER_SECONDS))
        settings = {
            **provider.settings(upstream, side=SIDE),
            "DATABASE_URL": url,
            "DATA_DIR": stack.enter_context(TemporaryDirectory(prefix="bench-pictures-")),
            "SECRET_KEY": token_urlsafe(48),
        }
        asyncio.run(_drain(url, upstream, settings, waiting))
