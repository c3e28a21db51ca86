"""What is left of a grant that has expired is taken back once, and never what is charged or held."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from app.billing.entries import post
from app.billing.expiry import GrantExpiry, expire
from app.core.db import SessionMaker
from app.models import CreditEntry
from pydantic import SecretStr
from sqlalchemy import select
from tests.billing.conftest import SetBalance, new_account
from tests.conftest import Start
from tests.harness import looks, until_waited_for

LEFT = {
    "nothing was charged": ({}, 30),
    "a part was charged": ({"charged": 10}, 20),
    "more was charged than it was": ({"charged": 60}, 0),
    "what is held stays": ({"held": 115}, 15),
    "all is held": ({"held": 130}, 0),
    "held and charged": ({"charged": 10, "held": 115}, 5),
}
"""Columns of a balance of 130, of which 30 are a grant that has expired; and what is taken back of it."""


async def _grant(sessions: SessionMaker, account_id: str, amount: int, *, expires: timedelta | None = None) -> str:
    async with sessions.begin() as session:
        posted = await post(
            session,
            account_id=account_id,
            kind="grant",
            amount=amount,
            reference=f"grant:{secrets.token_hex(8)}",
            expires_at=None if expires is None else datetime.now(UTC) + expires,
        )
    return posted.entry_id


async def _expire(sessions: SessionMaker, grant_id: str, *, account_id: str | None = None) -> bool:
    """By default the account's that has it."""
    async with sessions.begin() as session:
        owner = select(CreditEntry.account_id).where(CreditEntry.id == grant_id)
        account_id = account_id or (await session.execute(owner)).scalar_one()
        return await expire(session, grant_id=grant_id, account_id=account_id)


async def _taken_back(database: asyncpg.Connection, grant_id: str) -> list[int]:
    rows = await database.fetch(
        "select -amount as amount from credit_entries where reference = $1", f"expiry:{grant_id}"
    )
    return [row["amount"] for row in rows]


@pytest.fixture
async def expired(sessions: SessionMaker, account_id: str) -> str:
    """A grant of 30 that has expired, beside 100 that do not."""
    await _grant(sessions, account_id, 100)
    return await _grant(sessions, account_id, 30, expires=timedelta(seconds=-1))


@pytest.mark.parametrize("case", LEFT)
async def test_what_is_taken_back_is_free_and_was_not_used(
    sessions: SessionMaker,
    database: asyncpg.Connection,
    set_balance: SetBalance,
    expired: str,
    case: str,
) -> None:
    columns, taken = LEFT[case]
    await set_balance(**columns)
    assert sorted(await asyncio.gather(*(_expire(sessions, expired) for _ in range(3)))) == [
        False,
        False,
        taken > 0,
    ], "three at once, and one of them does it"
    assert await _taken_back(database, expired) == ([taken] if taken else [])
    credit = "select b.credit from balances b join credit_entries e using (account_id) where e.id = $1"
    assert await database.fetchval(credit, expired) == 130 - taken


@pytest.mark.parametrize(("reference", "left"), [("adjust:", 5), ("stripe:du_", 30)])
async def test_what_an_operator_has_taken_of_a_grant_is_not_taken_again_and_what_a_bank_took_is_not_of_it(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, expired: str, reference: str, *, left: int
) -> None:
    async with sessions.begin() as session:
        reference += secrets.token_hex(8)
        await post(session, account_id=account_id, kind="adjustment", amount=-25, reference=reference)
    await GrantExpiry(sessions).sweep()
    assert await _taken_back(database, expired) == [left]


async def test_an_expiry_leaves_what_was_charged_and_held_while_it_waited(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, expired: str
) -> None:
    async with database.transaction():
        row = "update balances set charged = 10, held = 115 where account_id = $1"
        await database.execute(row, account_id)
        expiring = asyncio.create_task(_expire(sessions, expired))
        await until_waited_for(database)
    assert await expiring
    assert await _taken_back(database, expired) == [5]


async def test_grants_that_have_not_expired_and_entries_of_others_are_left_alone(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str
) -> None:
    later = await _grant(sessions, account_id, 30, expires=timedelta(hours=1))
    of_other = await _grant(sessions, await new_account(database), 30, expires=timedelta(seconds=-1))
    await _grant(sessions, account_id, 30)
    assert not await _expire(sessions, later)
    assert not await _expire(sessions, of_other, account_id=account_id)
    assert await _taken_back(database, later) == []


async def test_a_sweep_takes_up_what_holds_have_let_go_of(
    sessions: SessionMaker, database: asyncpg.Connection, set_balance: SetBalance, expired: str
) -> None:
    await set_balance(held=130)
    expiry = GrantExpiry(sessions)
    await expiry.sweep()
    assert await _taken_back(database, expired) == []
    await set_balance(held=0)
    await expiry.sweep()
    await expiry.sweep()
    assert await _taken_back(database, expired) == [30]


async def test_a_sweep_goes_on_behind_a_page_of_grants_of_which_nothing_is_left(
    sessions: SessionMaker,
    database: asyncpg.Connection,
    account_id: str,
    expired: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.billing.expiry._AT_A_TIME", 2)
    await _expire(sessions, expired)
    later = [await _grant(sessions, account_id, 7, expires=timedelta(seconds=-0.1)) for _ in range(3)]
    await GrantExpiry(sessions).sweep()
    assert [await _taken_back(database, each) for each in (expired, *later)] == [[30], [7], [7], [7]]


async def test_a_server_takes_expired_grants_back(
    start: Start, own_database_url: str, database: asyncpg.Connection, expired: str
) -> None:
    await start(database_url=SecretStr(own_database_url))
    for _ in looks():
        if await _taken_back(database, expired):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is not taken back")
