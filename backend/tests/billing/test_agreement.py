"""All of an account's money agrees at every moment while its images are charged, and an hour that was closed stays."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from app.billing import hours
from app.billing.entries import post
from app.billing.reconcile import compare_balances, compare_day
from app.core.db import SessionMaker, connect_for_writing
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN, nonzero, read, scrape
from tests.generations.money import payers
from tests.generations.races.rows import Call
from tests.harness import generate, sign_up, until_waited_for
from tests.version_before.history import connected

PRICE = 50_000
CALLS, PAID = 20, 12
MODELS = """
currency = "USD"
[models.drawn]
price = "0.05"
[[models.drawn.routes]]
provider = "stub"
"""


async def _differences(sessions: SessionMaker, accounts: Sequence[str]) -> Sequence[str]:
    async with sessions.begin() as session:
        balances = await compare_balances(session, accounts=accounts)
    async with sessions.begin() as session:
        today = await compare_day(session, day=datetime.now(UTC).date(), accounts=accounts)
    return [str(each) for each in (*balances, *today)]


async def test_money_agrees_at_every_moment_while_images_are_charged(
    start: Start, own_database_url: str, database: asyncpg.Connection, sessions: SessionMaker, tmp_path: Path
) -> None:
    """One account pays in advance, one afterwards beyond its allowance, and one has a key with a cap."""
    (tmp_path / "models.toml").write_text(MODELS)
    settings = {"database_url": own_database_url, "billing": "on", "models_file": tmp_path / "models.toml"}
    client = await start(**settings, metrics_token=METRICS_TOKEN)
    accounts = [await sign_up(client) for _ in range(3)]
    keys = [await each.create_key() for each in accounts]
    ids = [each.account_id for each in accounts]
    advance, afterwards, capped = accounts
    for account, amount in ((advance, PAID * PRICE), (capped, CALLS * PRICE)):
        async with sessions.begin() as session:
            reference = f"grant:{account.id}"
            await post(session, account_id=account.account_id, kind="grant", amount=amount, reference=reference)
    change = "update balances set is_postpaid = true, allowance = $2 where account_id = $1"
    await database.execute(change, afterwards.account_id, 3 * PRICE)
    await database.execute("update api_keys set cap = $2 where id = $1", keys[2].id, PAID * PRICE)

    calls = [generate(client, key, size="64x64") for _ in range(CALLS) for key in keys]
    calling = asyncio.gather(*calls)
    compared = 0
    while not calling.done() or compared < 3:
        assert await _differences(sessions, ids) == []
        compared += 1
    statuses = Counter(each.status_code for each in await calling)
    assert statuses == {200: CALLS + 2 * PAID, 402: CALLS - PAID, 429: CALLS - PAID}
    assert await _differences(sessions, ids) == []

    counted = {"insufficient_credit": CALLS - PAID, "budget_exceeded": CALLS - PAID}
    assert await nonzero(client, "billing_refusals") == counted
    charged = read(await scrape(client))["nanobanana_billing_charged"][("model", "drawn"),]
    assert charged == pytest.approx((CALLS + 2 * PAID) * PRICE / 1_000_000)


_ERAS = """
create table eras (begins timestamptz);
insert into eras values ('2026-01-01Z');
create function era_of(at timestamptz) returns timestamptz language plpgsql as
  'begin return (select max(begins) from eras where begins <= at); end'
"""
"""In the place of hours, which a test cannot let pass. A function in plpgsql sees what was committed since its caller
began.
"""


@pytest.mark.parametrize("clock", ["clock_timestamp()", "now()"])
async def test_a_settlement_that_waits_adds_nothing_to_an_hour_that_was_closed(
    new_database_url: str, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """With the time at which it began to wait, it does."""
    monkeypatch.setattr(hours, "OVER", "hour < era_of(now())")
    closer, writer = [await connect_for_writing(new_database_url) for _ in range(2)]
    async with connected(new_database_url) as database:
        await database.execute(_ERAS)
        payer = await payers.new_payer(database, is_postpaid=True)
        records = [payers.priced(payer.key, 10) for _ in range(2)]
        await payers.record(*records).run(database)
        first, second = (_in_eras(payers.settle(each), clock) for each in records)
        await first.run(database)
        async with database.transaction():
            await database.execute("select from api_keys for no key update")
            settling = asyncio.create_task(second.run(writer))
            await until_waited_for(database)
            await closer.execute("insert into eras values (clock_timestamp())")
            await hours.close_hours(closer)
        await settling
        rows = await database.fetch("select billed, closed_at is not null from charges order by hour")
    for each in (closer, writer):
        await each.close()
    assert [tuple(row) for row in rows] == ([(10, True), (10, False)] if clock != "now()" else [(20, True)])


def _in_eras(call: Call, clock: str) -> Call:
    text = call.statement.text
    for part, other in (("date_trunc('hour', at, 'UTC')", "era_of(at)"), ("clock_timestamp()", clock)):
        assert part in text
        text = text.replace(part, other)
    return replace(call, statement=replace(call.statement, text=text))
