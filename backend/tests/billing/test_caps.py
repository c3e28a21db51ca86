"""The cap of a key counts what is held and was spent with it, from the begin of its period, at the moment it is set."""

import asyncio
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import asyncpg
import pytest
from app.billing.caps import KeyCap, KeyCapPeriod, find_key_caps, set_account_cap, set_key_cap
from app.core.db import SessionMaker
from app.core.security import new_id, new_timed_id
from tests.billing.conftest import new_account
from tests.harness import until_waited_for

SPENT_LONG_AGO, SPENT_LAST_MONTH, SPENT_TODAY, HELD = 1000, 100, 7, 5


@pytest.fixture
async def key_id(database: asyncpg.Connection, account_id: str) -> str:
    """A key that has spent something years ago, in the month before, and today, and holds a price."""
    key_id = new_id("key")
    statement = (
        "insert into api_keys (id, account_id, name, environment, prefix, key_hash) values ($1, $2, '', 'live', '', $3)"
    )
    await database.execute(statement, key_id, account_id, sha256(key_id.encode()).digest())
    today = await database.fetchval("select (now() at time zone 'UTC')::date")
    last_month = today.replace(day=1) - timedelta(days=1)
    for day, amount in ((last_month - timedelta(days=900), 1000), (last_month, SPENT_LAST_MONTH), (today, SPENT_TODAY)):
        await database.execute("insert into usage values ($1, $2, 1, 'm', $3, $3)", key_id, day, amount)
    await _hold(database, account_id, key_id, HELD)
    return key_id


async def _hold(database: asyncpg.Connection, account_id: str, key_id: str, price: int) -> None:
    statement = """
        insert into generations (id, request_id, account_id, environment, key_id, provider, prompt, size, status, price,
          lease_until)
        values ($1, $1, $2, 'live', $3, 'openai', '', '64x64', 'processing', $4, now() + interval '1 hour')
    """
    generation_id = new_timed_id("gen", now=datetime.now(UTC).timestamp())
    await database.execute(statement, generation_id, account_id, key_id, price)


async def _set(
    sessions: SessionMaker, account_id: str, key_id: str, amount: int | None, period: KeyCapPeriod = "total"
) -> bool:
    async with sessions.begin() as session:
        return await set_key_cap(session, account_id=account_id, key_id=key_id, amount=amount, period=period)


async def _caps(sessions: SessionMaker, account_id: str) -> dict[str, KeyCap]:
    async with sessions.begin() as session:
        return dict(await find_key_caps(session, account_id=account_id))


@pytest.mark.parametrize(
    ("period", "spent"),
    [
        ("total", SPENT_LONG_AGO + SPENT_LAST_MONTH + SPENT_TODAY),
        ("month", SPENT_TODAY),
        ("day", SPENT_TODAY),
    ],
)
async def test_a_new_cap_counts_what_was_spent_since_its_period_began(
    sessions: SessionMaker, account_id: str, key_id: str, period: KeyCapPeriod, spent: int
) -> None:
    assert await _set(sessions, account_id, key_id, 1, period), "less than is spent already"
    found = (await _caps(sessions, account_id))[key_id]
    assert (found.amount, found.period, found.spent, found.held) == (1, period, spent, HELD)
    assert (found.ends_at is None) == (period == "total")


async def test_a_new_cap_counts_what_was_held_while_it_waited(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, key_id: str
) -> None:
    async with database.transaction():
        await database.execute("select from api_keys where id = $1 for no key update", key_id)
        setting = asyncio.create_task(_set(sessions, account_id, key_id, 100))
        await until_waited_for(database)
        await _hold(database, account_id, key_id, 30)
    assert await setting
    assert (await _caps(sessions, account_id))[key_id].held == HELD + 30


async def test_what_was_spent_in_an_earlier_period_does_not_count_any_more(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, key_id: str
) -> None:
    await _set(sessions, account_id, key_id, 100, "day")
    await database.execute("update api_keys set period = period - interval '1 day' where id = $1", key_id)
    found = (await _caps(sessions, account_id))[key_id]
    assert (found.spent, found.held) == (0, HELD)


async def test_a_cap_is_removed_with_what_was_counted_for_it(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, key_id: str
) -> None:
    await _set(sessions, account_id, key_id, 100, "day")
    assert await _set(sessions, account_id, key_id, None)
    [row] = await database.fetch("select cap, cap_period, held from api_keys where id = $1", key_id)
    assert tuple(row) == (None, None, 0)


async def test_only_the_owner_of_an_unrevoked_key_sets_its_cap(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, key_id: str
) -> None:
    assert not await _set(sessions, await new_account(database), key_id, 100)
    await database.execute("update api_keys set revoked_at = now() where id = $1", key_id)
    assert not await _set(sessions, account_id, key_id, 100)


async def test_the_cap_of_an_account_leaves_what_is_held_and_spent(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str
) -> None:
    async with database.transaction():
        await database.execute("update balances set held = 9, spent = 8 where account_id = $1", account_id)
        setting = asyncio.create_task(_set_account_cap(sessions, account_id, 5))
        await until_waited_for(database)
    await setting
    [row] = await database.fetch("select cap, held, spent from balances where account_id = $1", account_id)
    assert tuple(row) == (5, 9, 8)


async def _set_account_cap(sessions: SessionMaker, account_id: str, amount: int) -> None:
    async with sessions.begin() as session:
        await set_account_cap(session, account_id=account_id, amount=amount)
