"""While a deployment is upgraded, processes of the version before go on working on this version's schema."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from app.core.db import connect_for_writing, create_engine
from app.core.security import new_id, new_timed_id, time_prefix
from sqlalchemy import text
from tests.harness import fresh_database
from tests.version_before import statements as old
from tests.version_before.calls import create_key, record, register
from tests.version_before.history import ONE_MODEL_A_DAY, connected, downgrade, upgrade, upgrade_to_next
from tests.version_before.rows import Rows, digest

Row = asyncpg.Record


@pytest.fixture(scope="module")
def upgraded_url(server_url: str, version_before: tuple[str, Rows]) -> Iterator[str]:
    """A migrated copy."""
    with fresh_database(server_url, copy_of=version_before[0]) as url:
        upgrade(url)
        yield url


@pytest.fixture
async def database(upgraded_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to it."""
    async with connected(upgraded_url) as database:
        await database.execute(ONE_MODEL_A_DAY)
        yield database


async def _stored(database: asyncpg.Connection, generation_id: str) -> asyncpg.Record:
    found = await database.fetchrow(
        "select *, tableoid::regclass::text as place from generations where id = $1", generation_id
    )
    assert found is not None
    return found


async def test_a_new_user_gets_an_account_and_a_new_key_gets_its_users(database: asyncpg.Connection) -> None:
    person = await register(database)
    key_id = await create_key(database, person)
    made = await database.fetchrow("select is_active, generate_limit from accounts where id = $1", person.account_id)
    assert tuple(made or ()) == (True, None)
    key = await database.fetchrow("select account_id, revision, expires_at from api_keys where id = $1", key_id)
    assert tuple(key or ()) == (person.account_id, 0, None)


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_a_recorded_generation_knows_its_account_environment_and_request(
    database: asyncpg.Connection, environment: str
) -> None:
    person = await register(database)
    key_id = await create_key(database, person, environment)
    for generation_id in await record(database, key_id, count=3):
        row = await _stored(database, generation_id)
        expected = (person.account_id, environment, generation_id, "nano-banana", "generate", 0, None)
        columns = ("account_id", "environment", "request_id", "model", "kind", "price", "lease_until")
        assert tuple(row[column] for column in columns) == expected
    counted = await database.fetchrow("select pictures, model, amount from usage where key_id = $1", key_id)
    assert tuple(counted or ()) == (3, "nano-banana", 0)


async def test_a_lease_begins_with_processing_and_ends_with_it(database: asyncpg.Connection) -> None:
    key_id = await create_key(database, await register(database))
    ended = []
    for status in ("delivered", "failed"):
        [made] = await record(database, key_id, status="processing")
        row = await _stored(database, made)
        assert timedelta(minutes=59) < row["lease_until"] - row["created_at"] <= timedelta(hours=1)
        [answer] = await database.fetch(old.SETTLE, [made], [made], [key_id], [status], [None])
        assert answer["settled"]
        ended.append(await _stored(database, made))
    assert [(row["status"], row["lease_until"]) for row in ended] == [("delivered", None), ("failed", None)]
    assert await database.fetchval("select pictures from usage where key_id = $1", key_id) == 1


async def test_a_lapsed_claim_is_taken_over(database: asyncpg.Connection) -> None:
    key_id, scope = await create_key(database, await register(database)), digest(new_id("scope"))
    made = await record(database, key_id, status="processing", scope=scope, lease=-1, count=2)
    [doubt] = await database.fetch(old.DOUBTS, [new_timed_id("gen", now=time.time())], [scope])
    assert (doubt["id"], doubt["status"], doubt["lapsed"]) == (made[0], "processing", True)
    await database.fetch(old.TAKE_OVER, scope)
    for each in made:
        row = await _stored(database, each)
        assert (row["status"], row["lease_until"]) == ("lost", None)
    await record(database, key_id, scope=scope)


async def test_a_row_is_stored_with_its_month(database: asyncpg.Connection) -> None:
    key_id = await create_key(database, await register(database))
    [first] = await database.fetch("""
        select substring(pg_get_expr(c.relpartbound, c.oid) from $$TO \\('(.*)'\\)$$) as bound, c.relname
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'generations'::regclass and c.relname like 'generations_before_%'
    """)
    year, month = map(int, first["relname"].removeprefix("generations_before_").split("_"))
    begin = datetime(year, month, 1, tzinfo=UTC)
    assert first["bound"] == time_prefix("gen", begin)
    for seconds, place in ((-0.001, first["relname"]), (0, f"generations_{year}_{month:02}")):
        [made] = await record(database, key_id, at=begin.timestamp() + seconds)
        assert (await _stored(database, made))["place"] == place


async def test_a_resend_writes_and_counts_nothing(database: asyncpg.Connection) -> None:
    key_id = await create_key(database, await register(database))
    made = new_timed_id("gen", now=time.time())
    row = (made, key_id, "A cute banana", "64x64", "png", "stub", "delivered", made, None, None, None)
    for is_written in (True, False):
        [answer] = await database.fetch(old.RECORD, *([each] for each in row))
        assert (answer["created_at"] is not None) == is_written
    assert await database.fetchval("select pictures from usage where key_id = $1", key_id) == 1


_OF_USER = (
    "select is_active, generate_limit, generate_limit_per_key, generate_concurrency_per_key from users where id = $1"
)
_OF_ACCOUNT = _OF_USER.replace("users", "accounts")


async def test_limits_and_disabling_are_the_same_for_users_and_accounts(database: asyncpg.Connection) -> None:
    person = await register(database)
    await database.fetch(old.LIMIT_ACCOUNT, "600/minute", person.email)
    is_active = False
    await database.execute(old.SET_ACTIVE, is_active, person.id)
    expected = (is_active, "600/minute", None, None)
    assert tuple(await database.fetchrow(_OF_ACCOUNT, person.account_id) or ()) == expected
    change = """
        update accounts set is_active = true, generate_limit = null, generate_limit_per_key = '5/hour',
          generate_concurrency_per_key = 3 where id = $1
    """
    await database.execute(change, person.account_id)
    expected_then = (True, None, "5/hour", 3)
    assert tuple(await database.fetchrow(_OF_USER, person.id) or ()) == expected_then
    assert tuple(await database.fetchrow(_OF_ACCOUNT, person.account_id) or ()) == expected_then


async def test_every_change_of_what_a_key_may_do_raises_its_revision(database: asyncpg.Connection) -> None:
    key_id = await create_key(database, await register(database))
    revision = "select revision from api_keys where id = $1"
    changes: Sequence[tuple[int, str, tuple[object, ...]]] = (
        (1, old.SUSPEND, (True, key_id)),
        (1, old.SUSPEND, (True, key_id)),  # it is suspended already
        (2, old.SUSPEND, (False, key_id)),
        (3, old.LIMIT_KEY, ("5/hour", key_id)),
        (4, "update api_keys set generate_concurrency = 3 where id = $1", (key_id,)),
        (5, "update api_keys set expires_at = now() where id = $1", (key_id,)),
        (5, "update api_keys set last_used_at = now(), name = 'b' where id = $1", (key_id,)),
        (6, old.REVOKE, (datetime.now(UTC), key_id)),
    )
    for expected, statement, parameters in changes:
        await database.execute(statement, *parameters)
        assert await database.fetchval(revision, key_id) == expected, statement


async def test_the_lists_of_the_version_before_say_the_same(database: asyncpg.Connection, rows: Rows) -> None:
    listed = await database.fetch(old.LIST, "delivered", 100, rows.ada.id, "test", 100)
    assert [row["id"] for row in listed] == [rows.generations["test"]]
    one = await database.fetch(old.FIND_ONE, rows.ada.id, "live", rows.generations["old"], "delivered")
    assert [row["id"] for row in one] == [rows.generations["old"]]


async def test_statements_prepared_before_the_swap_run_after_it(old_database_url: str, rows: Rows) -> None:
    """On the connections that a process of the version before holds: the ledger's, and those of its pool."""
    writer = await connect_for_writing(old_database_url)
    engine = create_engine(old_database_url, pool_size=1)
    key_id = rows.ada.keys["live"].id
    today = datetime.now(UTC).date()
    midnight = time_prefix("gen", datetime(today.year, today.month, today.day, tzinfo=UTC))

    async def use() -> None:
        scope = digest(new_id("scope"))
        [made] = await record(writer, key_id)
        [drawn] = await record(writer, key_id, status="processing", scope=scope, lease=60)
        await writer.fetch(old.DOUBTS, [made], [scope])
        [settled] = await writer.fetch(old.SETTLE, [drawn], [drawn], [key_id], ["delivered"], [scope])
        assert settled["settled"]
        await record(writer, key_id, status="processing", scope=scope[::-1], lease=-1)
        await writer.fetch(old.TAKE_OVER, scope[::-1])
        assert await writer.fetch(old.RECONCILE, midnight, "gen_z", today) == []
        await create_key(writer, rows.ada)
        async with engine.begin() as session:
            for statement, parameters in _readings(rows, made):
                assert (await session.execute(text(statement), parameters)).all(), statement
            forgotten = await session.execute(text(_named(old.FORGET)), {"p1": made})
            assert forgotten.rowcount == 1

    for step in (None, upgrade_to_next, downgrade, upgrade_to_next):
        if step is not None:
            await asyncio.to_thread(step, old_database_url)
        for _ in range(6):  # from the fifth time on, plans are kept
            await use()
    await engine.dispose()
    await writer.close()


def _readings(rows: Rows, generation_id: str) -> Sequence[tuple[str, Mapping[str, object]]]:
    """What a process of the version before reads, as SQLAlchemy sends it, with named parameters."""
    today = datetime.now(UTC).date()
    read: Sequence[tuple[str, Sequence[object]]] = (
        (old.LOG_IN, (rows.ada.email,)),
        (old.LIST, ("delivered", 20, rows.ada.id, "live", 20)),
        (old.FIND_ONE, (rows.ada.id, "live", generation_id, "delivered")),
        (old.USAGE, (rows.ada.id, today - timedelta(days=60), today, 20)),
    )
    named = [{f"p{n}": value for n, value in enumerate(values, 1)} for _, values in read]
    return [(_named(statement), values) for (statement, _), values in zip(read, named, strict=True)]


def _named(statement: str) -> str:
    for number in range(1, 6):
        statement = statement.replace(f"${number}::VARCHAR COLLATE", f"CAST(:p{number} AS VARCHAR) COLLATE")
        for kind in ("VARCHAR", "INTEGER", "DATE"):
            statement = statement.replace(f"${number}::{kind}", f"CAST(:p{number} AS {kind})")
    return statement
