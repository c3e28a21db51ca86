"""Each month's generations have a partition of their own, made before the month begins."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from app.core.db import create_engine
from app.core.security import time_prefix
from app.generations.partitions import ensure_partitions
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.harness import looks
from tests.schema_dump import dump
from tests.version_before import statements as old
from tests.version_before.calls import create_key, record, register
from tests.version_before.history import ONE_MODEL_A_DAY, connected

_PARTITIONS = """
select c.relname, pg_get_expr(c.relpartbound, c.oid) from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'generations'::regclass order by 1
"""
_PLACES = "select tableoid::regclass::text as place, count(*) from generations where id = any($1) group by 1"
_DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


@pytest.fixture
async def engine(new_database_url: str) -> AsyncIterator[AsyncEngine]:
    """Connections to a database in which nothing has been written."""
    engine = create_engine(new_database_url, pool_size=10)
    yield engine
    await engine.dispose()


@pytest.fixture
async def database(new_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another one, to look at what is there."""
    async with connected(new_database_url) as database:
        await database.execute(ONE_MODEL_A_DAY)
        yield database


async def _pairs(database: asyncpg.Connection, query: str, *parameters: object) -> dict[str, Any]:
    return {row[0]: row[1] for row in await database.fetch(query, *parameters)}


async def _ensure(engine: AsyncEngine, now: datetime | None = None) -> Sequence[str]:
    async with engine.connect() as connection:
        return await ensure_partitions(connection, now)


async def _count_default(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(text("select count(*) from generations_default")) or 0


def _begin(months_ahead: int) -> datetime:
    """The begin of a month after this one, in UTC."""
    begin = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(months_ahead):
        begin = (begin + timedelta(days=32)).replace(day=1)
    return begin


def _name(begin: datetime) -> str:
    return f"generations_{begin:%Y_%m}"


async def test_this_month_and_the_next_two_are_there_and_made_once(
    engine: AsyncEngine, database: asyncpg.Connection
) -> None:
    after_migration = await database.fetch(_PARTITIONS)
    assert await _ensure(engine) == ()
    assert await database.fetch(_PARTITIONS) == after_migration
    later = _begin(4)
    expected = [_name(_begin(months)) for months in (4, 5, 6)]
    assert await _ensure(engine, later) == expected
    assert await _ensure(engine, later) == ()
    bounds = await _pairs(database, _PARTITIONS)
    low, high = (time_prefix("gen", _begin(months)) for months in (5, 6))
    assert bounds[expected[1]] == f"FOR VALUES FROM ('{low}') TO ('{high}')"


async def test_a_months_partition_is_like_the_one_that_the_migration_made(
    engine: AsyncEngine, database: asyncpg.Connection, new_database_url: str
) -> None:
    months = [name for name, bounds in await database.fetch(_PARTITIONS) if "FROM ('" in bounds]
    from_migration = months[0]
    [made, *_] = await _ensure(engine, _begin(6))
    one, other = (_described(new_database_url, name) for name in (made, from_migration))
    assert made == _name(_begin(6))
    assert one == other
    assert one.count("INDEX") >= 5


def _described(database_url: str, partition: str) -> str:
    """Its statements, without its name and bounds."""
    bounds = "FOR VALUES FROM .*"
    return re.sub(bounds, "", dump(database_url, table=partition).replace(partition, "partition"))


async def test_a_new_month_begins_under_traffic(new_database_url: str, engine: AsyncEngine) -> None:
    """Four processes record around midnight while four make partitions. None fails, and each row is in its month."""
    midnight = _begin(3).timestamp()
    await _ensure(engine, _begin(2))
    async with AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(connected(new_database_url)) for _ in range(4)]
        for writer in writers:
            await writer.execute("set lock_timeout = '1s'")
        await writers[0].execute(ONE_MODEL_A_DAY)
        person = await register(writers[0])
        keys = [await create_key(writers[0], person) for _ in range(4)]
        made: list[str] = []
        is_over = asyncio.Event()

        async def write(writer: asyncpg.Connection) -> None:
            turn = 0
            while not is_over.is_set():
                turn += 1
                at = midnight + (turn % 7 - 3) * 0.001
                made.extend(await record(writer, keys[turn % 4], at=at))
                [drawn] = await record(writer, keys[turn % 3], at=at, status="processing")
                await writer.fetch(old.SETTLE, [drawn], [drawn], [keys[turn % 3]], ["delivered"], [None])
                made.append(drawn)

        writing = [asyncio.create_task(write(writer)) for writer in writers]
        for months in range(3, 9):
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(_ensure(engine, _begin(months)))
            await asyncio.sleep(0.05)
        is_over.set()
        await asyncio.gather(*writing)
        database = writers[0]
        places = await _pairs(database, _PLACES, made)
        assert set(places) == {_name(_begin(2)), _name(_begin(3))}
        assert sum(places.values()) == len(made)
        partitions = await _pairs(database, _PARTITIONS)
        assert {_name(_begin(months)) for months in range(2, 11)} <= partitions.keys()
        assert await database.fetchval("select sum(pictures) from usage") == len(made)
        assert await database.fetchval(_DEADLOCKS) == 0
    assert await _count_default(engine) == 0


async def test_rows_that_came_before_their_months_partition_are_moved_into_it(
    engine: AsyncEngine, database: asyncpg.Connection
) -> None:
    """As after months in which nothing ran, when the first request comes before the partition is made."""
    person = await register(database)
    key_id = await create_key(database, person)
    now = _begin(5)
    [early] = await record(database, key_id, at=now.timestamp())
    [drawn] = await record(database, key_id, at=now.timestamp() + 1, status="processing")
    assert await _count_default(engine) == 2
    assert _name(now) in await _ensure(engine, now)
    assert await _count_default(engine) == 0
    assert await _pairs(database, _PLACES, [early, drawn]) == {_name(now): 2}
    [answer] = await database.fetch(old.SETTLE, [drawn], [drawn], [key_id], ["delivered"], [None])
    assert answer["settled"]


async def test_a_long_reading_transaction_delays_the_partitions_and_is_not_disturbed(
    engine: AsyncEngine, new_database_url: str
) -> None:
    async with connected(new_database_url) as reader:
        await reader.execute("begin; select count(*) from generations")
        assert await _ensure(engine, _begin(6)) == ()
        assert await reader.fetchval("select count(*) from generations") == 0
        await reader.execute("commit")
    assert len(await _ensure(engine, _begin(6))) == 3


async def test_they_are_made_while_a_transaction_that_records_is_open(
    engine: AsyncEngine, database: asyncpg.Connection
) -> None:
    key_id = await create_key(database, await register(database))
    async with database.transaction():
        await record(database, key_id)
        assert len(await _ensure(engine, _begin(6))) == 3


async def test_recording_goes_on_while_the_partitions_wait_for_a_lock(
    engine: AsyncEngine, database: asyncpg.Connection, new_database_url: str
) -> None:
    key_id = await create_key(database, await register(database))
    waiting = """
        select count(*) from pg_locks l join pg_class c on c.oid = l.relation
        where not l.granted and c.relname = 'generations_default'
    """
    async with connected(new_database_url) as reader:
        await reader.execute("begin; select count(*) from generations")
        ensuring = asyncio.create_task(_ensure(engine, _begin(6)))
        for _ in looks():
            if await reader.fetchval(waiting):
                break
        await record(database, key_id)
        assert await ensuring == ()


async def test_ids_of_the_past_and_of_no_month_are_stored(engine: AsyncEngine, database: asyncpg.Connection) -> None:
    key_id = await create_key(database, await register(database))
    [past] = await record(database, key_id, at=time.time() - 400 * 86_400)
    [far] = await record(database, key_id, at=time.time() + 4000 * 86_400)
    places = await _pairs(database, _WHERE, [past, far])
    assert places[past].startswith("generations_before_")
    assert places[far] == "generations_default"
    assert await _count_default(engine) == 1


_WHERE = "select id, tableoid::regclass::text from generations where id = any($1)"
