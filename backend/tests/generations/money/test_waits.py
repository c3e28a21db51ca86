"""Statements that wait for each other's locks: what decides is how the rows are after the wait. Each test also shows
that it finds the mistake that it is about, as a change of the statement's text.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg
import pytest
from app.generations.ledger import statements
from tests.generations.money import payers
from tests.generations.money.payers import Payer
from tests.generations.money.sums import wrong_sums
from tests.generations.races import rows
from tests.generations.races.rows import Call
from tests.harness import until_waited_for

PRICE = 10
_SETS_CAP = """
update api_keys k set cap = 1000, held = (
  select coalesce(sum(price), 0) from generations g where g.key_id = k.id and g.lease_until is not null
) where k.id = $1
"""
"""As a cap is set: in a statement of its own, once the key is locked."""


def changed(call: Call, part: str, wrong: str) -> Call:
    """The call with this change of its statement; where both are the same, as it is."""
    assert part in call.statement.text
    return replace(call, statement=replace(call.statement, text=call.statement.text.replace(part, wrong)))


async def behind(database: asyncpg.Connection, first: Call, writer: asyncpg.Connection, second: Call) -> None:
    """Runs the second while the first waits to commit."""
    async with database.transaction():
        await first.run(database)
        running = asyncio.create_task(second.run(writer))
        await until_waited_for(database)
    await running


async def names_of_wrong_sums(database: asyncpg.Connection) -> set[str]:
    return {row["name"] for row in await wrong_sums(database)}


@pytest.mark.parametrize(
    ("lock", "admitted"), [("order by b.account_id for no key update", 1), ("order by b.account_id", 2)]
)
async def test_two_keys_whose_account_has_room_for_one(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], lock: str, admitted: int
) -> None:
    """Without a lock of the balance, both read the room that there was before either."""
    payer = await payers.new_payer(database, keys=2, credit=PRICE)
    first, second = [payers.record(payers.priced(key, PRICE)) for key in payer.keys]
    await behind(database, first, writers[0], changed(second, "order by b.account_id for no key update", lock))
    assert await database.fetchval("select count(*) from generations") == admitted
    assert bool(await names_of_wrong_sums(database)) == (admitted > 1)


async def _capped_while_it_waits(
    database: asyncpg.Connection, writer: asyncpg.Connection, payer: Payer, waiting: Call
) -> set[str]:
    async with database.transaction():
        await database.execute("select from api_keys where id = $1 for no key update", payer.key.id)
        running = asyncio.create_task(waiting.run(writer))
        await until_waited_for(database)
        await database.execute(_SETS_CAP, payer.key.id)
    await running
    return await names_of_wrong_sums(database)


CAPPED = {
    "record": ("and (l.cap is not null or", "and (k.cap is not null or"),
    "settle": ("where k.id = l.id", "where k.id = l.id and k.cap is not null"),
    "sweep": ("where k.id = r.key_id", "where k.id = r.key_id and k.cap is not null"),
}


@pytest.mark.parametrize("is_wrong", [False, True], ids=["", "asked of the snapshot"])
@pytest.mark.parametrize("name", CAPPED)
async def test_a_key_that_gets_a_cap_while_a_statement_waits_for_it_counts_what_it_holds(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], name: str, *, is_wrong: bool
) -> None:
    payer = await payers.new_payer(database, credit=100)
    await database.execute("update api_keys set last_used_at = now() where id = $1", payer.key.id)
    held = payers.priced(payer.key, PRICE)
    await payers.record(held).run(database)
    if name == "sweep":
        await rows.lapse(database, held.id)
    call = {
        "record": payers.record(payers.priced(payer.key, PRICE)),
        "settle": payers.settle(held),
        "sweep": Call(statements.SWEEP_LAPSED, {}),
    }[name]
    part, wrong = CAPPED[name]
    call = changed(call, part, wrong if is_wrong else part)
    assert await _capped_while_it_waits(database, writers[0], payer, call) == ({"held of key"} if is_wrong else set())


@pytest.mark.parametrize("source", ["written", "admitted"])
async def test_what_is_sent_again_is_held_once(database: asyncpg.Connection, source: str) -> None:
    payer = await payers.new_payer(database, credit=100)
    record = payers.record(payers.priced(payer.key, PRICE, scope=bytes(32)))
    for _ in range(2):
        await changed(record, "price from written", f"price from {source}").run(database)
    assert await names_of_wrong_sums(database) == (set() if source == "written" else {"held"})


@pytest.mark.parametrize("clock", ["clock_timestamp()", "now()"])
async def test_a_settlement_that_waits_for_the_balance_is_of_a_later_time_than_what_it_waited_for(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], clock: str
) -> None:
    """So it adds nothing to an hour that was closed meanwhile. Hours are of a millisecond here."""
    payer = await payers.new_payer(database, is_postpaid=True)
    record = payers.priced(payer.key, PRICE)
    await payers.record(record).run(database)
    call = changed(changed(payers.settle(record), "clock_timestamp()", clock), "'hour'", "'milliseconds'")
    closed_at: datetime
    async with database.transaction():
        await database.execute("select from balances where account_id = $1 for no key update", payer.account_id)
        settling = asyncio.create_task(call.run(writers[0]))
        await until_waited_for(database)
        await asyncio.sleep(0.002)
        closed_at = await database.fetchval("select date_trunc('milliseconds', clock_timestamp())")
    await settling
    is_later = clock == "clock_timestamp()"
    found = await database.fetchrow("select hour >= $1, delivered_at >= $1 from charges, generations", closed_at)
    assert tuple(found or ()) == (is_later, is_later)


@pytest.mark.parametrize("wrong", [False, True], ids=["", "the first image decides"])
async def test_the_claim_of_a_request_of_which_a_part_was_delivered_answers_with_that_part(
    database: asyncpg.Connection, *, wrong: bool
) -> None:
    payer = await payers.new_payer(database, credit=100)
    record = payers.priced(payer.key, PRICE, images=3, scope=bytes(32))
    await payers.record(record).run(database)
    call = payers.settle(record, ends={record.ids[0]: payers.FAILED})
    if wrong:
        call = changed(call, "e.delivered_ids is null", "e.request_id <> all(e.delivered_ids)")
    await call.run(database)
    claim = await database.fetchrow("select generation_id, other_ids from claims")
    assert claim is None if wrong else tuple(claim or ()) == (record.ids[1], [record.ids[2]])
