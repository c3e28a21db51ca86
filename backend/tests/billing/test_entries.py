"""An entry is made once, by whatever number of calls at once, and changes the credit by exactly its amount."""

import asyncio
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from random import shuffle

import asyncpg
import pytest
from app.billing.entries import EntryMismatch, Posted, TooLittleCredit, post
from app.billing.expiry import expire
from app.core.db import SessionMaker
from app.core.metrics import Metrics
from app.models import Balance, EntryKind
from sqlalchemy import update
from tests.billing.conftest import SetBalance, new_account
from tests.harness import until_waited_for

_ENTRIES = (
    "select count(*) as number, coalesce(sum(amount), 0)::bigint as amount from credit_entries where account_id = $1"
)


async def _post(
    sessions: SessionMaker,
    account_id: str,
    amount: int,
    *,
    kind: EntryKind = "grant",
    reference: str | None = None,
    expires: timedelta | None = None,
    metrics: Metrics | None = None,
) -> Posted:
    async with sessions.begin() as session:
        return await post(
            session,
            account_id=account_id,
            kind=kind,
            amount=amount,
            reference=reference or f"grant:{secrets.token_hex(8)}",
            expires_at=None if expires is None else datetime.now(UTC) + expires,
            metrics=None if metrics is None else metrics.billing,
        )


async def _stored(database: asyncpg.Connection, account_id: str) -> tuple[int, int, int]:
    """How many entries there are, their sum, and the credit."""
    [(number, amount)] = await database.fetch(_ENTRIES, account_id)
    credit = await database.fetchval("select credit from balances where account_id = $1", account_id)
    return number, amount, credit


async def test_ten_at_once_with_one_reference_make_one_entry(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str
) -> None:
    reference = f"stripe:pi_{secrets.token_hex(8)}"
    posted = await asyncio.gather(*(_post(sessions, account_id, 5, reference=reference) for _ in range(10)))
    assert sorted(each.is_new for each in posted) == [False] * 9 + [True]
    assert len({each.entry_id for each in posted}) == 1
    assert {each.credit for each in posted} == {5}
    assert await _stored(database, account_id) == (1, 5, 5)


async def test_ten_at_once_with_different_references_are_all_added(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str
) -> None:
    posted = await asyncio.gather(*(_post(sessions, account_id, amount) for amount in range(1, 11)))
    assert all(each.is_new for each in posted)
    assert await _stored(database, account_id) == (10, 55, 55)


async def test_a_reference_of_another_account_or_amount_is_an_error_that_is_logged_and_counted(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, log: StringIO
) -> None:
    reference, metrics, other_id = f"stripe:pi_{secrets.token_hex(8)}", Metrics(), await new_account(database)
    await _post(sessions, account_id, 5, reference=reference)
    for owner, amount in ((account_id, 6), (other_id, 5)):
        with pytest.raises(EntryMismatch, match=reference):
            await _post(sessions, owner, amount, reference=reference, metrics=metrics)
    assert await _stored(database, account_id) == (1, 5, 5)
    assert await _stored(database, other_id) == (0, 0, 0)
    assert "entry_mismatch" in log.getvalue()
    assert b"nanobanana_billing_entry_mismatches_total 2.0" in metrics.text()


async def test_no_entry_of_our_own_takes_what_is_charged_or_held(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, set_balance: SetBalance
) -> None:
    await _post(sessions, account_id, 100)
    await set_balance(charged=50, held=20)
    with pytest.raises(TooLittleCredit) as refused:
        await _post(sessions, account_id, -31, kind="adjustment")
    assert refused.value.free == 30
    assert await _stored(database, account_id) == (1, 100, 100)
    assert (await _post(sessions, account_id, -30, kind="adjustment")).credit == 70


async def test_what_the_payment_provider_has_done_is_entered_as_it_is(
    sessions: SessionMaker, account_id: str, set_balance: SetBalance
) -> None:
    await _post(sessions, account_id, 100)
    await set_balance(charged=50, held=20)
    taken = await _post(sessions, account_id, -100, kind="adjustment", reference=f"stripe:dp_{secrets.token_hex(8)}")
    assert taken.credit == 0, "of which 50 are charged: nothing more is admitted"


async def test_of_all_that_happens_at_once_the_credit_is_the_sum_of_the_entries(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str
) -> None:
    granted = [await _post(sessions, account_id, amount, expires=timedelta(seconds=-1)) for amount in (30, 20)]

    async def take(amount: int) -> None:
        with suppress(TooLittleCredit):
            await _post(sessions, account_id, -amount, kind="adjustment")

    async def deliver(price: int) -> None:
        async with sessions.begin() as session:
            free = Balance.credit - Balance.charged - Balance.held >= price
            of_account = update(Balance).where(Balance.account_id == account_id, free)
            await session.execute(of_account.values(charged=Balance.charged + price))

    async def take_back(grant: Posted) -> None:
        async with sessions.begin() as session:
            await expire(session, grant_id=grant.entry_id, account_id=account_id)

    everything = [*(take(7) for _ in range(4)), *(deliver(5) for _ in range(4)), *map(take_back, granted * 3)]
    shuffle(everything)
    await asyncio.gather(*everything)
    _, amount, credit = await _stored(database, account_id)
    charged = await database.fetchval("select charged from balances where account_id = $1", account_id)
    assert amount == credit >= charged


async def test_an_entry_counts_what_was_held_while_it_waited(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str
) -> None:
    await _post(sessions, account_id, 100)
    async with database.transaction():
        await database.execute("update balances set held = 80 where account_id = $1", account_id)
        taking = asyncio.create_task(_post(sessions, account_id, -30, kind="adjustment"))
        await until_waited_for(database)
    with pytest.raises(TooLittleCredit) as refused:
        await taking
    assert refused.value.free == 20
