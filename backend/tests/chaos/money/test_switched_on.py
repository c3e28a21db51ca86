"""Billing is switched on over a deployment that has drawn for nothing until then: the past stays free."""

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from app.core.security import time_prefix
from tests.chaos.jobs.hands import hands
from tests.chaos.jobs.yard import LOOK_SECONDS, Yard, execute
from tests.chaos.load import Line, Order
from tests.chaos.money.books import wrong_books
from tests.chaos.money.broken import reconciled, sessions_of
from tests.chaos.money.treasury import PRICE, Treasury
from tests.chaos.schedule import Schedule, times
from tests.harness import Account, Key, generate, looks, sign_up

ROWS, JOBS = times(short=1_000, long=3_000_000), 8
_DELIVERED_BEFORE = """
with made as (
  insert into generations (id, request_id, account_id, environment, key_id, prompt, size, format, model, provider,
    status, list_price, delivered_at)
  select id, id, $1, 'live', $2, 'before', '1024x1024', 'png', 'plain', 'openai', 'delivered', 50000, now()
  from (select $4 || lpad(n::text, 21, '0') as id from generate_series(1, $3::int) n) ids
  returning delivered_at, list_price
)
insert into usage (key_id, day, model, pictures, list_amount)
select $2, (delivered_at at time zone 'UTC')::date, 'plain', count(*), sum(list_price) from made group by 2
"""
_UNJUDGED = "set session_replication_role = replica"
"""The triggers that judge each row would take hours."""
_AGE = """
select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8 from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
_REMOVED = ("delete from generations where key_id = $1", "delete from usage where key_id = $1")
_ENDS = "select status, price, list_price from generations where account_id = $1 and prompt like 'in flight%'"
_MONEY = """
select held, charged, spent, (select coalesce(sum(amount), 0)::bigint from charges c where c.account_id = b.account_id)
from balances b where account_id = $1
"""


async def test_what_was_accepted_before_billing_was_switched_on_is_not_charged(
    yard: Yard, schedule: Schedule, tmp_path: Path
) -> None:
    account, call = await sign_up(yard.client), "in flight, waited for"
    old, new = [await account.create_key() for _ in range(2)]
    await _deliver_before(yard, account, old)
    gate = yard.provider.gates[call] = asyncio.Event()
    async with yard.serve(workers=1, BILLING="off") as before:
        lines = [Line(before.port, []) for _ in range(JOBS + 1)]
        waited_for = asyncio.create_task(lines[0].ask(new, call))
        orders = [Order(images=1 + n % 2, job_class="now") for n in range(JOBS)]
        jobs = [line.ask(new, f"in flight {n}", order=orders[n]) for n, line in enumerate(lines[1:])]
        assert {job.outcome for job in await asyncio.gather(*jobs)} == {"accepted"}
        await yard.provider.until_asked(call)
        assert (await generate(yard.client, new)).status_code == 402  # the other server charges by now
        gate.set()
        assert (await waited_for).outcome == "ok"
        for line in lines:
            line.close()
    async with hands(yard.environment, tmp_path / "workers", count=1):
        await _until_ended(yard, account, images=1 + sum(order.images for order in orders))
    assert await _money(yard, account) == (0, 0, 0, 0)
    async with sessions_of(yard) as sessions:
        treasury = Treasury(sessions, schedule)
        await treasury.enter(account, "grant", PRICE, by="grant")
    answers = [await generate(yard.client, new) for _ in range(2)]
    assert [each.status_code for each in answers] == [200, 402]
    assert await _money(yard, account) == (0, PRICE, PRICE, PRICE)
    ids = [account.account_id]
    assert await wrong_books(yard.own, ids, unchanged=ids, entered=treasury.entered) == []
    await _reconcile(yard)
    for removed in _REMOVED:  # the other tests compare all rows many times
        await execute(yard.own, removed, old.id)


async def _deliver_before(yard: Yard, account: Account, key: Key) -> None:
    database = await yard.own.connect()
    await database.execute(_UNJUDGED)
    now = time_prefix("gen", datetime.now(UTC))
    await database.execute(_DELIVERED_BEFORE, account.account_id, key.id, ROWS, now)
    await database.execute("analyze generations")
    await database.close()


async def _reconcile(yard: Yard) -> None:
    """Prints how long it takes, and how old a snapshot of any client gets meanwhile."""
    started, oldest = time.monotonic(), 0.0
    reconciling = asyncio.create_task(reconciled(yard))
    while not reconciling.done():
        [[age]] = await execute(yard.own, _AGE)
        oldest = max(oldest, age)
        await asyncio.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - started
    sys.stdout.write(f"{ROWS} rows: reconcile took {seconds:.1f} s, the longest transaction {oldest:.2f} s\n")
    assert await reconciling == []


async def _until_ended(yard: Yard, account: Account, *, images: int) -> None:
    """Returns once so many images that were accepted before are delivered, for nothing."""
    for _ in looks():
        ends = [tuple(row) for row in await execute(yard.own, _ENDS, account.account_id)]
        if ends == [("delivered", 0, PRICE)] * images:
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(ends)


async def _money(yard: Yard, account: Account) -> tuple[int, ...]:
    """What is held, what was charged and spent, and the sum of the charges."""
    [row] = await execute(yard.own, _MONEY, account.account_id)
    return tuple(row)
