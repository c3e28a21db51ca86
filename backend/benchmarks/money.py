"""`make bench-money`, first part: what a price adds to recording and settling, for one account and for a thousand.

One connection, batches of 24 requests for one image, 100,000 rows there before. Batches with and without a price take
turns, so that a machine that changes its pace changes both. Less disturbed than the time of a batch is the time that
the database's process was at work for it.
"""

import asyncio
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
from app import migrations
from app.core.db import connect_for_writing
from app.core.embedded import embedded_postgres
from app.core.security import new_timed_id
from app.generations.ledger import batches
from app.generations.ledger.queue import ImageEnd, Lease, PendingRecord, PendingSettlement
from app.generations.ledger.statements import DISCARD_PLANS, Statement
from benchmarks.machine import machine

ACCOUNTS = 1, 1000
BATCH, ROUNDS, WARM_UP_ROUNDS = 24, 400, 20
ROWS_BEFORE = 100_000
PRICE = 40_000

_ADD_ACCOUNTS = "insert into accounts (id) select 'acc_' || lpad(n::text, 20, '0') from generate_series(0, $1 - 1) n"
_ADD_CREDIT = """
with granted as (
  insert into credit_entries (id, account_id, kind, amount, reference, charged_before)
  select 'ent_' || right(id, 20), id, 'grant', 1000000000000000, 'grant:' || id, 0 from accounts
  returning account_id, amount
)
update balances b set credit = g.amount, cap = g.amount from granted g where b.account_id = g.account_id
"""
_ADD_KEYS = """
insert into api_keys (id, account_id, name, environment, prefix, key_hash)
select 'key_' || right(id, 20), id, 'bench', 'live', 'nb_live_00000000',
  sha256(convert_to('nb_live_' || lpad(right(id, 20), 32, '0'), 'UTF8'))
from accounts
"""
ADD_ROWS = """
insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status, delivered_at)
select id, id, 'acc_' || number, 'live', 'key_' || number, 'A cute banana', '1024x1024', 'gemini', 'delivered', now()
from unnest($1::text[]) with ordinality i(id, n), lateral (select lpad((n % $2)::text, 20, '0')) a(number)
"""


@dataclass
class Case:
    """Requests at this price, each of one of so many accounts. Milliseconds of each batch: in all, and at work."""

    accounts: int
    price: int
    times: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"record": [], "settle": []})

    async def measure(self, connection: asyncpg.Connection) -> None:
        records = [self._new_record() for _ in range(BATCH)]
        [(statement, _)] = batches.record_batches(records)
        values = batches.recorded_values(statement, records, waiting_max=0)
        await self._timed("record", connection, statement, values)
        ends = {each.id: ImageEnd(route="route", provider="gemini", tries=1, cost=30_000) for each in records}
        settlements = [PendingSettlement(each, ends) for each in records]
        [(statement, _)] = batches.settlement_batches(settlements)
        await self._timed("settle", connection, statement, batches.settled_values(settlements))

    async def _timed(
        self, name: str, connection: asyncpg.Connection, statement: Statement, values: Mapping[str, Any]
    ) -> None:
        """Raises ValueError where a request was not written, or not settled."""
        arguments = statement.arguments(values)
        work, start = _work(connection), time.perf_counter()
        rows = await connection.fetch(statement.text, *arguments)
        self.times[name].append(((time.perf_counter() - start) * 1e3, _work(connection) - work))
        if not all(row["created_at" if name == "record" else "settled"] for row in rows):
            raise ValueError(rows)

    def _new_record(self) -> PendingRecord:
        return PendingRecord(
            [new_timed_id("gen", now=time.time())],
            f"key_{secrets.randbelow(self.accounts):020d}",
            *(0, "A cute banana", "1024x1024", "png", "nano-banana", "gemini"),
            list_price=PRICE,
            lease=Lease(uuid4(), 300),
            price=self.price,
        )


def _work(connection: asyncpg.Connection) -> float:
    schedule = Path(f"/proc/{connection.get_server_pid()}/schedstat").read_text()
    return int(schedule.split()[0]) / 1e6


def raw_key(account: int) -> str:
    """The key of the account with this number, from 0 on."""
    return f"nb_live_{account:032}"


async def add_accounts(url: str, number: int) -> None:
    """With a key each, a cap, and credit for everything."""
    connection = await connect_for_writing(url)
    await connection.execute(_ADD_ACCOUNTS, number)
    await connection.execute(_ADD_CREDIT)
    await connection.execute(_ADD_KEYS)
    await connection.close()


async def fill(url: str) -> None:
    """Adds accounts, and rows of theirs without a price from the last hour."""
    await add_accounts(url, max(ACCOUNTS))
    connection = await connect_for_writing(url)
    await connection.execute("set statement_timeout = 0")
    begin = time.time() - 3600
    ids = [new_timed_id("gen", now=begin + number / 100) for number in range(ROWS_BEFORE)]
    await connection.execute(ADD_ROWS, ids, max(ACCOUNTS))
    await connection.execute("vacuum analyze")
    await connection.close()


async def _measure(url: str) -> Sequence[Case]:
    await fill(url)
    connection = await connect_for_writing(url)
    cases = [Case(accounts, price) for accounts in ACCOUNTS for price in (0, PRICE)]
    for round_ in range(WARM_UP_ROUNDS + ROUNDS):
        if round_ == WARM_UP_ROUNDS:
            await connection.execute(DISCARD_PLANS.text)  # as every sweep does
            for case in cases:
                case.times = {name: [] for name in case.times}
        for case in random.sample(cases, len(cases)):
            await case.measure(connection)
    await connection.close()
    return cases


def main() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        url = stack.enter_context(embedded_postgres(Path(folder)))
        migrations.upgrade(url)
        cases = asyncio.run(_measure(url))
    print(
        f"{machine()}\n{ROUNDS} interleaved batches of {BATCH}, {ROWS_BEFORE:,} rows before; medians, ratios of pairs\n"
    )
    print("| accounts | | ms without a price | with a price | ratio | ms at work without | with | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for free, priced in zip(cases[::2], cases[1::2], strict=True):
        for name in free.times:
            cells = [f"{free.accounts:,}", name]
            for kind in (0, 1):
                without, with_ = [[each[kind] for each in case.times[name]] for case in (free, priced)]
                ratio = statistics.median(a / b for a, b in zip(with_, without, strict=True))
                cells += [f"{statistics.median(without):.2f}", f"{statistics.median(with_):.2f}", f"{ratio:.2f}"]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
