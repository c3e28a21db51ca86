"""What is recorded of a generation: exactly what was delivered, and nothing of what was refused."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta

import asyncpg
import httpx2
import pytest
from app.core.db import SessionMaker, create_engine
from app.core.security import new_timed_id
from app.features.keys.service import InvalidApiKey, revoke
from app.features.usage.service import record_delivered
from app.models import Generation
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.harness import Account, Key, generate, until_waited_for

_LEDGER = """
    select (delivered_at at time zone 'UTC')::date as day, count(*) as pictures from generations
    where key_id = $1 and status = 'delivered' group by 1 order by 1
"""
_REVOKED_AFTERWARDS = """
    select revoked_at > delivered_at from api_keys k join generations g on g.key_id = k.id where k.id = $1
"""
_USAGE = "select day, pictures from usage where key_id = $1 order by day"


@pytest.fixture
async def key(account: Account) -> Key:
    """A key that nobody has used."""
    return await account.create_key()


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[SessionMaker]:
    """The session maker that the program itself uses."""
    engine = create_engine(database_url, pool_size=2)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


def _generation(key: Key) -> Generation:
    return Generation(id=new_timed_id("gen", now=0), key_id=key.id, prompt="a", size="64x64", provider="stub")


async def _usage(database: asyncpg.Connection, key: Key) -> dict[date, int]:
    usage, ledger = [
        {row["day"]: row["pictures"] for row in await database.fetch(query, key.id)} for query in (_USAGE, _LEDGER)
    ]
    assert usage == ledger
    return usage


async def _assert_nothing_recorded(database: asyncpg.Connection, key: Key) -> None:
    assert await _usage(database, key) == {}
    assert await database.fetchval("select last_used_at from api_keys where id = $1", key.id) is None


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_every_delivered_picture_counts_one_on_its_day(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, environment: str
) -> None:
    key = await account.create_key(environment=environment)
    for count in (1, 2, 3):
        assert (await generate(client, key)).status_code == 200
        assert sum((await _usage(database, key)).values()) == count


async def test_parallel_calls_are_all_counted(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(generate(client, key) for _ in range(50)))
    assert [answer.status_code for answer in answers] == [200] * 50
    ids = {row["id"] for row in await database.fetch("select id from generations where key_id = $1", key.id)}
    assert ids == {answer.json()["id"] for answer in answers}
    assert sum((await _usage(database, key)).values()) == 50


async def test_a_key_counts_only_its_own(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    await generate(client, await account.create_key())
    await _assert_nothing_recorded(database, key)


async def test_another_days_count_stays_as_it_was(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    today: date = await database.fetchval("select (now() at time zone 'UTC')::date")
    yesterday = today - timedelta(days=1)
    await database.execute("insert into usage values ($1, $2, 7)", key.id, yesterday)
    assert (await generate(client, key)).status_code == 200
    rows = await database.fetch(_USAGE, key.id)
    assert tuple(rows[0]) == (yesterday, 7)
    assert [row["pictures"] for row in rows[1:]] == [1]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Niue"])
async def test_days_are_utc_days_wherever_the_database_lives(
    sessions: SessionMaker, key: Key, database: asyncpg.Connection, zone: str
) -> None:
    # 14 hours ahead of UTC and 11 behind: at any time, one of the two has another date than UTC.
    async with sessions.begin() as session:
        await session.execute(text(f"set local timezone to '{zone}'"))
        await record_delivered(session, _generation(key))
    assert sum((await _usage(database, key)).values()) == 1


async def test_last_used_at_moves_forward_and_never_back(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    last_used_at = "select last_used_at from api_keys where id = $1"
    times = []
    for _ in range(2):
        created_at = (await generate(client, key)).json()["created_at"]
        times.append(await database.fetchval(last_used_at, key.id))
        assert times[-1].isoformat().replace("+00:00", "Z") == created_at
    assert times[0] < times[1]
    later = times[1] + timedelta(days=1)
    await database.execute("update api_keys set last_used_at = $1 where id = $2", later, key.id)
    assert (await generate(client, key)).status_code == 200
    assert await database.fetchval(last_used_at, key.id) == later


async def test_what_is_refused_is_not_recorded(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    assert (await generate(client, key, size="0x0")).status_code == 422
    assert (await generate(client, key, prompt="")).status_code == 422
    assert (await client.post("/v1/generate", content=b"{", headers=key.headers)).status_code == 415
    assert (await generate(client, Key(key.id, key.raw[:-1]))).status_code == 401
    await account.revoke_key(key)
    assert (await generate(client, key)).status_code == 401
    await _assert_nothing_recorded(database, key)


@pytest.mark.parametrize(
    "stop",
    [
        "update api_keys set revoked_at = clock_timestamp() where id = $1",
        "update api_keys set is_suspended = true where id = $1",
    ],
)
async def test_a_key_that_is_stopped_after_admission_is_401_and_nothing_is_recorded(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, stop: str
) -> None:
    async with database.transaction():
        await database.execute(stop, key.id)
        call = asyncio.ensure_future(generate(client, key))
        await until_waited_for(database)  # admitted: it has seen the key as it was, and comes to record
    answer = await call
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
    await _assert_nothing_recorded(database, key)


async def test_a_revocation_waits_for_what_is_being_recorded_and_is_younger(
    account: Account, sessions: SessionMaker, key: Key, database: asyncpg.Connection
) -> None:
    async with sessions.begin() as session:
        await record_delivered(session, _generation(key))
        revocation = asyncio.ensure_future(account.revoke_key(key))
        await until_waited_for(database, holder=await session.scalar(text("select pg_backend_pid()")))
    await revocation
    assert await database.fetchval(_REVOKED_AFTERWARDS, key.id)
    assert sum((await _usage(database, key)).values()) == 1


async def test_no_generation_is_younger_than_a_revocation_that_began_before_it(
    account: Account, sessions: SessionMaker, key: Key, database: asyncpg.Connection
) -> None:
    async with sessions.begin() as revoking:
        await revoking.execute(text("select now()"))
        async with sessions.begin() as recording:
            await record_delivered(recording, _generation(key))
        await revoke(revoking, user_id=account.id, key_id=key.id)
    assert await database.fetchval(_REVOKED_AFTERWARDS, key.id)


async def test_the_service_records_nothing_for_a_revoked_key(
    account: Account, sessions: SessionMaker, key: Key, database: asyncpg.Connection
) -> None:
    await account.revoke_key(key)
    with pytest.raises(InvalidApiKey):
        async with sessions.begin() as session:
            await record_delivered(session, _generation(key))
    await _assert_nothing_recorded(database, key)


async def test_ledger_counter_and_key_are_written_together_or_not_at_all(
    sessions: SessionMaker, key: Key, database: asyncpg.Connection
) -> None:
    full = "insert into usage values ($1, (now() at time zone 'UTC')::date, 9223372036854775807)"
    await database.execute(full, key.id)
    with pytest.raises(DBAPIError):
        async with sessions.begin() as session:
            await record_delivered(session, _generation(key))
    await database.execute("delete from usage where key_id = $1", key.id)
    await _assert_nothing_recorded(database, key)
