"""Recording: exactly the delivered generations are recorded and counted, and no refused one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta
from functools import partial
from itertools import pairwise

import asyncpg
import httpx2
import pytest
from app.core.db import connect_for_writing, create_engine
from app.features.auth.administration import set_account_active
from app.features.keys.service import revoke
from app.generations.ledger import Ledger
from app.generations.ledger.queue import Recorded
from app.generations.ledger.writer import Writer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from tests.features.usage.recorded import (
    assert_nothing_recorded,
    ids,
    locked,
    new_record,
    outcomes,
    total,
    until_waiting,
    usage,
)
from tests.harness import Account, Key, generate

_LAST_USED_AT = "select last_used_at from api_keys where id = $1"
_MOVE_LAST_USED_AT = "update api_keys set last_used_at = now() + $2 where id = $1 returning last_used_at"
_FULL_COUNTERS = """
    insert into usage (key_id, day, pictures)
    select $1, (now() at time zone 'UTC')::date + n, 9223372036854775807 from generate_series(0, 1) n
"""
_COUNTER = "insert into usage (key_id, day, pictures) values (:key, (now() at time zone 'UTC')::date, 0)"
_REVOKED_AFTERWARDS = """
    select revoked_at > delivered_at from api_keys k join generations g on g.key_id = k.id where k.id = $1
"""

Stop = Callable[[AsyncSession, Account, Key], Awaitable[object]]


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    """A transaction of the application's kind."""
    engine = create_engine(database_url, pool_size=1)
    async with async_sessionmaker(engine)() as session:
        yield session
    await engine.dispose()


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_every_delivered_image_counts_one_on_its_day(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, environment: str
) -> None:
    key = await account.create_key(environment=environment)
    for count in (1, 2, 3):
        assert (await generate(client, key)).status_code == 200
        assert await total(database, key) == count


async def test_parallel_calls_of_several_keys_are_all_counted_under_their_own_key(
    client: httpx2.AsyncClient, account: Account, other_account: Account, database: asyncpg.Connection
) -> None:
    keys = [await account.create_key(), await account.create_key(), await other_account.create_key()]
    answers = await asyncio.gather(*(generate(client, keys[n % 3]) for n in range(50)))
    assert [answer.status_code for answer in answers] == [200] * 50
    for n, key in enumerate(keys):
        assert await ids(database, key) == {answer.json()["id"] for answer in answers[n::3]}
        assert await total(database, key) == len(answers[n::3])


async def test_a_key_counts_only_its_own_images(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    await generate(client, await account.create_key())
    await assert_nothing_recorded(database, key)


async def test_another_days_count_stays_as_it_was(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    yesterday: date = await database.fetchval("select (now() at time zone 'UTC')::date - 1")
    await database.execute("insert into usage (key_id, day, pictures) values ($1, $2, 7)", key.id, yesterday)
    assert (await generate(client, key)).status_code == 200
    rows = await database.fetch("select day, pictures from usage where key_id = $1 order by day", key.id)
    assert tuple(rows[0]) == (yesterday, 7)
    assert [row["pictures"] for row in rows[1:]] == [1]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Niue"])
async def test_days_are_utc_days_whatever_the_databases_time_zone(
    database_url: str, key: Key, database: asyncpg.Connection, zone: str
) -> None:
    # 14 hours ahead of UTC and 11 behind: at any time, one of the two has another date than UTC.
    async def connect() -> asyncpg.Connection:
        connection = await connect_for_writing(database_url)
        await connection.execute(f"set timezone to '{zone}'")
        return connection

    ledger = Ledger(Writer(connect), queue_max=1, deadline_seconds=60)
    ledger.open()
    await ledger.record(new_record(key))
    await ledger.close()
    assert await total(database, key) == 1


async def test_last_used_at_is_the_time_of_the_generation(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    for _ in range(2):
        created_at = (await generate(client, key)).json()["created_at"]
        last_used_at = await database.fetchval(_LAST_USED_AT, key.id)
        assert last_used_at.isoformat().replace("+00:00", "Z") == created_at
        await database.execute(_MOVE_LAST_USED_AT, key.id, -timedelta(hours=1))


async def test_last_used_at_moves_at_most_once_a_second(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    times = []
    for _ in range(20):
        assert (await generate(client, key)).status_code == 200
        times.append(await database.fetchval(_LAST_USED_AT, key.id))
    moves = sorted(set(times))
    assert times == sorted(times)
    assert all(after - before > timedelta(seconds=1) for before, after in pairwise(moves))


async def test_last_used_at_never_moves_back(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    later = await database.fetchval(
        "update api_keys set last_used_at = now() + interval '1 day' returning last_used_at"
    )
    assert (await generate(client, key)).status_code == 200
    assert await database.fetchval(_LAST_USED_AT, key.id) == later


async def test_refused_calls_are_not_recorded(
    client: httpx2.AsyncClient, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    assert (await generate(client, key, size="0x0")).status_code == 422
    assert (await generate(client, key, prompt="")).status_code == 422
    assert (await client.post("/v1/generate", content=b"{", headers=key.headers)).status_code == 415
    assert (await generate(client, Key(key.id, key.raw[:-1]))).status_code == 401
    await account.revoke_key(key)
    assert (await generate(client, key)).status_code == 401
    await assert_nothing_recorded(database, key)


async def _revoke(session: AsyncSession, account: Account, key: Key) -> None:
    await revoke(session, account_id=account.account_id, key_id=key.id)


async def _disable(session: AsyncSession, account: Account, _: Key) -> None:
    assert await set_account_active(session, owner=account.email, active=False)


@pytest.mark.parametrize("stop", [_revoke, _disable], ids=["revoked", "suspended"])
async def test_a_key_that_is_revoked_or_suspended_while_its_call_waits_is_401_and_nothing_is_recorded(
    patient: httpx2.AsyncClient,
    account: Account,
    key: Key,
    session: AsyncSession,
    database: asyncpg.Connection,
    *,
    stop: Stop,
) -> None:
    async with locked(database, key):
        stopping = asyncio.ensure_future(stop(session, account, key))
        await until_waiting(database)
        call = asyncio.ensure_future(generate(patient, key))
        await until_waiting(database, 2)  # the call has found the key active, and waits to record
    await stopping
    await until_waiting(database)
    await session.commit()
    answer = await call
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
    await assert_nothing_recorded(database, key)


async def test_a_revocation_waits_for_generations_that_are_being_recorded_and_is_later_than_they_are(
    account: Account, ledger: Ledger, key: Key, session: AsyncSession, database: asyncpg.Connection
) -> None:
    # The ledger waits for the counter's row while it holds the key's row.
    await session.execute(text(_COUNTER), {"key": key.id})
    recording = asyncio.ensure_future(ledger.record(new_record(key)))
    await until_waiting(database)
    revocation = asyncio.ensure_future(account.revoke_key(key))
    await until_waiting(database, 2)
    await session.rollback()
    await asyncio.gather(recording, revocation)
    assert await database.fetchval(_REVOKED_AFTERWARDS, key.id)
    assert await total(database, key) == 1


async def test_no_generation_is_recorded_after_a_revocation_that_began_before_it(
    account: Account, ledger: Ledger, key: Key, session: AsyncSession, database: asyncpg.Connection
) -> None:
    await session.execute(text("select now()"))
    await ledger.record(new_record(key))
    await revoke(session, account_id=account.account_id, key_id=key.id)
    await session.commit()
    assert await database.fetchval(_REVOKED_AFTERWARDS, key.id)


async def test_generation_counter_and_key_are_written_together_or_not_at_all(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    await database.execute(_FULL_COUNTERS, key.id)
    assert (await generate(client, key)).status_code == 422
    await database.execute("delete from usage where key_id = $1", key.id)
    await assert_nothing_recorded(database, key)


async def test_one_commit_records_many_generations_and_each_caller_gets_its_own(
    ledger: Ledger, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    other = await account.create_key()
    records = [new_record(each) for each in (key, other) * 8]
    async with locked(database, key):
        first = asyncio.ensure_future(ledger.record(new_record(key)))
        await until_waiting(database)
        rest = asyncio.ensure_future(outcomes(ledger, *records))
    assert isinstance(await first, Recorded)
    told = [each for each in await rest if isinstance(each, Recorded)]
    assert [each.ids for each in told] == [each.ids for each in records]
    assert len({each.created_at for each in told}) == 1, "the time of the one transaction"
    assert (await total(database, key), await total(database, other)) == (9, 8)


async def test_usage_is_exact_with_several_processes_on_one_key(
    database_url: str, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    other = await account.create_key()
    ledgers = [
        Ledger(Writer(partial(connect_for_writing, database_url)), queue_max=1000, deadline_seconds=60)
        for _ in range(4)
    ]
    for ledger in ledgers:
        ledger.open()
    done = await asyncio.gather(
        *(ledgers[n % 4].record(new_record((key, other)[n % 3 == 0])) for n in range(400)), return_exceptions=True
    )
    for ledger in ledgers:
        await ledger.close()
    assert [each for each in done if not isinstance(each, Recorded)] == []
    assert await total(database, key) + await total(database, other) == 400
    assert await usage(database, key)
