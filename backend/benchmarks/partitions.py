"""`make bench-money`, second part: what a settlement costs that looks up no partitions (decision 55).

Two connections as the ledger has them, one of which looks up partitions, settle batches of 24 in turns, with so many
partitions, each with rows. Less disturbed than the time of a batch is the time that its connection's process was at
work for it.
"""

import asyncio
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from app import migrations
from app.core.db import connect_for_writing, create_engine
from app.core.embedded import embedded_postgres
from app.core.security import new_timed_id
from app.generations.ledger.statements import DISCARD_PLANS
from app.generations.partitions import ensure_partitions
from benchmarks.machine import machine
from benchmarks.money import ADD_ROWS, PRICE, Case, add_accounts

ACCOUNTS = 1000
MONTHS = 13, 40
ROWS_OF_A_MONTH, ROUNDS, WARM_UP_ROUNDS = 5000, 300, 20
_MONTH = timedelta(days=30)


async def _add_months(url: str, connection: asyncpg.Connection, months: int) -> int:
    """Makes the partitions of so many months from now on, with rows, and returns how many partitions there are."""
    engine = create_engine(url, pool_size=1)
    async with engine.connect() as pooled:
        for number in range(months):
            await ensure_partitions(pooled, datetime.now(UTC) + number * _MONTH)
            ids = [
                new_timed_id("gen", now=time.time() + number * _MONTH.total_seconds()) for _ in range(ROWS_OF_A_MONTH)
            ]
            await connection.execute(ADD_ROWS, ids, ACCOUNTS)
    await engine.dispose()
    await connection.execute("vacuum analyze")
    return int(await connection.fetchval("select count(*) from pg_inherits where inhparent = 'generations'::regclass"))


async def _measure(url: str, months: int) -> None:
    owner = await asyncpg.connect(url.replace("+asyncpg", ""))
    partitions = await _add_months(url, owner, months)
    looking_up, not_looking_up = [await connect_for_writing(url) for _ in range(2)]
    await looking_up.execute("set enable_partition_pruning = on")
    for price in (0, PRICE):
        sides = [(looking_up, Case(ACCOUNTS, price)), (not_looking_up, Case(ACCOUNTS, price))]
        for number in range(WARM_UP_ROUNDS + ROUNDS):
            if number == WARM_UP_ROUNDS:
                for connection, case in sides:
                    await connection.execute(DISCARD_PLANS.text)
                    case.times["settle"] = []
            for connection, case in random.sample(sides, 2):
                await case.measure(connection)
        on, off = [[work for _, work in case.times["settle"]] for _, case in sides]
        ratio = statistics.median(b / a for a, b in zip(on, off, strict=True))
        print(f"| {partitions} | {price} | {statistics.median(on):.2f} | {statistics.median(off):.2f} | {ratio:.3f} |")
    for each in (owner, looking_up, not_looking_up):
        await each.close()


def main() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        url = stack.enter_context(embedded_postgres(Path(folder)))
        migrations.upgrade(url)
        asyncio.run(add_accounts(url, ACCOUNTS))
        print(f"{machine()}\n{ROUNDS} interleaved settlements of 24, {ACCOUNTS:,} accounts; milliseconds at work\n")
        print("| partitions | price | looked up | not looked up | ratio |\n|---|---|---|---|---|")
        for months in MONTHS:
            asyncio.run(_measure(url, months))


if __name__ == "__main__":
    main()
