"""Plans that change while the ledger admits and settles what they pay for."""

import asyncio
from collections.abc import Sequence
from itertools import cycle, islice

import asyncpg
from app.billing import subscriptions
from app.catalogue.offers import PlanOffer
from app.core.db import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.generations.money import payers
from tests.generations.money.payers import FAILED, Payer
from tests.generations.money.sums import wrong_sums

ROUNDS = 25
PLANS = [PlanOffer(name="plan", title="Plan", allowance=each) for each in (50, 0, 1000, 7)]


async def test_plans_that_change_while_images_are_admitted_and_settled_overspend_nothing(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], money_url: str
) -> None:
    payer = await payers.new_payer(database, keys=2, credit=5)
    engine = create_engine(money_url, pool_size=1)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def change() -> None:
        for plan in islice(cycle(PLANS), ROUNDS):
            async with sessions.begin() as session:
                await subscriptions.apply(
                    session, account_id=payer.account_id, plan=plan, anchor_day=1, status="active"
                )
            assert not await wrong_sums(database)
            await subscriptions.finish_pending(sessions)

    drawn = await asyncio.gather(*(_draw(each, payer) for each in writers), change())
    assert sum(each or 0 for each in drawn) > ROUNDS
    await subscriptions.finish_pending(sessions)
    assert not await wrong_sums(database)
    row = await payers.balance_of(database, payer)
    assert (row["held"], row["allowance"]) == (0, PLANS[(ROUNDS - 1) % len(PLANS)].allowance)
    await engine.dispose()
    await database.execute("delete from subscriptions")


async def _draw(writer: asyncpg.Connection, payer: Payer) -> int:
    """Has two images at a time admitted, of which one is delivered and the other fails; how many were admitted."""
    admitted = 0
    for _ in range(ROUNDS):
        records = [payers.priced(key, price) for key, price in zip(payer.keys, (3, 2), strict=True)]
        verdicts = await payers.record(*records).run(writer)
        written = [each for each, row in zip(records, verdicts, strict=True) if row["created_at"]]
        if written:
            await payers.settle(*written, ends={written[-1].id: FAILED}).run(writer)
        admitted += len(written)
    return admitted
