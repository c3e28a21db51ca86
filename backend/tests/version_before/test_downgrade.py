"""The way back: the version before finds its schema again, and all its rows."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest
from app.core.security import new_id, new_timed_id
from tests.schema_dump import dump
from tests.version_before.history import connected, downgrade, stored, upgrade
from tests.version_before.rows import Rows
from tests.version_before.statements import RECORD, SETTLE

_AHEAD_SECONDS = 60 * 86_400

_WRITE_GENERATION = """
insert into generations (id, request_id, account_id, environment, key_id, provider, prompt, size, status, delivered_at,
  lease_until)
select $1, $1, account_id, environment, id, 'gemini', 'A cute banana', '64x64', $3,
  case when $3 = 'delivered' then now() end, case when $3 in ('queued', 'processing') then now() + interval '1 day' end
from api_keys where id = $2
"""
_WRITE_CLAIM = """
insert into claims (scope, fingerprint, generation_id) values (sha256(convert_to($1, 'UTF8')), sha256(''), $1)
"""
_COUNT_FIVE = """
insert into usage (key_id, day, pictures, model)
select key_id, day, 5, $2 from usage where key_id = $1 and model = 'nano-banana'
"""
_WRITE_OF_NO_KEY = """
insert into generations (id, key_id, prompt, size, provider, status) values ($1, $2, '', '', '', 'lost')
"""


def on_database(database_url: str, action: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
    """Runs the action on a connection, from outside any event loop."""

    async def run() -> None:
        async with connected(database_url) as database:
            await action(database)

    asyncio.run(run())


def test_up_and_down_again_leaves_the_schema_and_every_row_as_they_were(old_database_url: str) -> None:
    schema, rows = dump(old_database_url), asyncio.run(stored(old_database_url))
    upgrade(old_database_url)
    assert dump(old_database_url) != schema
    downgrade(old_database_url)
    assert dump(old_database_url) == schema
    assert asyncio.run(stored(old_database_url)) == rows
    upgrade(old_database_url)


def test_the_index_that_may_be_dropped_after_the_upgrade_comes_back(old_database_url: str) -> None:
    async def drop(database: asyncpg.Connection) -> None:
        index = "select relname from pg_class where relname ~ '^generations_before_.*_of_key_idx$'"
        await database.execute(f"drop index {await database.fetchval(index)}")

    schema = dump(old_database_url)
    upgrade(old_database_url)
    on_database(old_database_url, drop)
    downgrade(old_database_url)
    assert dump(old_database_url) == schema


def test_what_this_version_wrote_is_there_for_the_version_before(old_database_url: str, rows: Rows) -> None:
    key_id = rows.ada.keys["live"].id
    made: dict[str, str] = {}

    async def write(database: asyncpg.Connection) -> None:
        for ahead in (0, _AHEAD_SECONDS):
            for status in ("queued", "processing", "delivered", "failed", "lost", "cancelled"):
                made[f"{status} {ahead}"] = new_timed_id("gen", now=time.time() + ahead)
                await database.execute(_WRITE_GENERATION, made[f"{status} {ahead}"], key_id, status)
        spread = "select count(distinct tableoid) from generations where id = any($1)"
        assert await database.fetchval(spread, list(made.values())) == 2
        for name in ("queued 0", "cancelled 0", "delivered 0"):
            await database.execute(_WRITE_CLAIM, made[name])

    async def read(database: asyncpg.Connection) -> None:
        mapped = {"queued": "failed", "cancelled": "failed"}
        for name, generation_id in made.items():
            status = name.split()[0]
            found = await database.fetchval("select status from generations where id = $1", generation_id)
            assert found == mapped.get(status, status), name
        free = "select generation_id from claims where lease_until <= now() and generation_id = any($1)"
        freed = {each for (each,) in await database.fetch(free, list(made.values()))}
        assert freed == {made["queued 0"], made["cancelled 0"]}

    upgrade(old_database_url)
    on_database(old_database_url, write)
    downgrade(old_database_url)
    on_database(old_database_url, read)


def test_counts_of_several_models_become_one(old_database_url: str, rows: Rows) -> None:
    key_id = rows.ada.keys["live"].id
    counted = "select sum(pictures) from usage where key_id = $1"
    before: list[int] = []

    async def write(database: asyncpg.Connection) -> None:
        others = (
            "insert into usage (key_id, day, pictures, model) select key_id, day, 5, $2 from usage where key_id = $1"
        )
        for model in ("a-model", "z-model"):
            await database.execute(f"{others} and model = 'nano-banana'", key_id, model)
        before.append(await database.fetchval(counted, key_id))

    async def read(database: asyncpg.Connection) -> None:
        assert await database.fetchval(counted, key_id) == before[0]
        assert await database.fetchval("select max(pictures) from usage where key_id = $1", key_id) > 10

    upgrade(old_database_url)
    schema = dump(old_database_url)
    on_database(old_database_url, write)
    downgrade(old_database_url)
    on_database(old_database_url, read)
    upgrade(old_database_url)
    assert dump(old_database_url) == schema


def test_a_key_that_has_expired_stays_refused_and_changed_limits_stay(old_database_url: str, rows: Rows) -> None:
    ada = rows.ada

    async def change(database: asyncpg.Connection) -> None:
        expire = "update api_keys set expires_at = now() + $2::interval where id = $1"
        await database.execute(expire, ada.keys["live"].id, timedelta(seconds=-1))
        await database.execute(expire, ada.keys["limited"].id, timedelta(days=1))
        limit = "update accounts set generate_limit = '9/hour', is_active = false where id = $1"
        await database.execute(limit, ada.account_id)

    async def read(database: asyncpg.Connection) -> None:
        active = "select revoked_at is null from api_keys where id = $1"
        assert await database.fetchval(active, ada.keys["live"].id) is False
        assert await database.fetchval(active, ada.keys["limited"].id) is True
        limits = await database.fetchrow("select generate_limit, is_active from users where id = $1", ada.id)
        assert tuple(limits or ()) == ("9/hour", False)

    upgrade(old_database_url)
    on_database(old_database_url, change)
    downgrade(old_database_url)
    on_database(old_database_url, read)


def test_the_version_before_records_and_settles_after_the_way_back(old_database_url: str, rows: Rows) -> None:
    key_id, made = rows.ada.keys["live"].id, new_timed_id("gen", now=time.time())

    async def use(database: asyncpg.Connection) -> None:
        entry = (made, key_id, "A cute banana", "64x64", "png", "gemini", "processing", made, None, None, None)
        [row] = await database.fetch(RECORD, *([each] for each in entry))
        assert row["created_at"] is not None
        [row] = await database.fetch(SETTLE, [made], [made], [key_id], ["delivered"], [None])
        assert row["settled"] is True
        unknown = (
            "insert into generations (id, key_id, prompt, size, provider, status) values ($1, $2, '', '', '', 'lost')"
        )
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await database.execute(unknown, new_id("gen"), new_id("key"))

    upgrade(old_database_url)
    downgrade(old_database_url)
    on_database(old_database_url, use)
