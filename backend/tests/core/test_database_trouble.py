"""A statement or a commit that fails is a 503 that clients may retry, never a success."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.types import EventDict
from tests.conftest import Start
from tests.core.database_calls import ask_everything, causes, create_key
from tests.features.scraped import METRICS_TOKEN, nonzero
from tests.harness import PATIENCE_SECONDS, Account, Key, generate, looks
from tests.problems import check_problem

LOCK_ACCOUNT = "select from accounts where id = 'acc_' || substr($1, 5) for update"
LOCK_KEY = "select from api_keys where id = $1 for update"

FAIL_AT_COMMIT = """
create function fail_at_commit() returns trigger language plpgsql as $$
begin
    raise exception 'no' using errcode = right(coalesce(to_jsonb(new) ->> 'name', to_jsonb(new) ->> 'prompt'), 5);
end $$;
create constraint trigger fail_at_commit after insert on api_keys deferrable initially deferred
    for each row when (new.name like 'fail at commit with %') execute function fail_at_commit();
create constraint trigger fail_at_commit after insert on generations deferrable initially deferred
    for each row when (new.prompt like 'fail at commit with %') execute function fail_at_commit();
"""


@pytest.fixture
def a_pool_sooner_given_up_than_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.db._SERVER_SETTINGS", {"lock_timeout": "1min"})
    monkeypatch.setattr("app.core.db._POOL_WAIT_SECONDS", 0.1)


@pytest.fixture
async def commits_that_fail(database: asyncpg.Connection) -> AsyncIterator[None]:
    """Commits of keys and generations named `fail at commit with SQLSTATE` fail with it."""
    await database.execute(FAIL_AT_COMMIT)
    yield
    await database.execute("drop function fail_at_commit cascade")


@asynccontextmanager
async def locked(database: asyncpg.Connection, statement: str, row_id: str) -> AsyncIterator[None]:
    async with database.transaction():
        await database.execute(statement, row_id)
        yield


async def blocked(database: asyncpg.Connection, statement: str = "") -> int:
    """The pid of the backend whose statement begins so and waits for a lock of this connection, once there is one."""
    waiting = """
        select pid from pg_stat_activity where $1 = any(pg_blocking_pids(pid)) and starts_with(query, $2)
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (pid := await database.fetchval(waiting, database.get_server_pid(), statement)) is None:
            await database.execute("select pg_stat_clear_snapshot()")  # within a transaction the view stands still
    return int(pid)


async def test_a_lock_timeout_is_a_503_and_counted(
    start: Start, account: Account, key: Key, database: asyncpg.Connection, lines: list[EventDict]
) -> None:
    client = await start(metrics_token=METRICS_TOKEN)
    async with locked(database, LOCK_ACCOUNT, account.id):
        await database.execute(LOCK_KEY, key.id)
        answers = await asyncio.gather(create_key(client, account), generate(client, key))
    for answer in answers:
        check_problem(answer, 503, "unavailable")
    assert causes(lines) == {"55P03"}
    counted = await nonzero(client, "database_errors")
    assert set(counted) == {"55P03"}
    assert counted["55P03"] >= 2, "by the pool and by the ledger"
    assert (await create_key(client, account)).status_code == 201
    assert (await generate(client, key)).status_code == 200


async def test_a_statement_timeout_is_a_503(
    start: Start,
    account: Account,
    database: asyncpg.Connection,
    lines: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.core.db._SERVER_SETTINGS", {"statement_timeout": "200ms"})
    client = await start()
    async with locked(database, LOCK_ACCOUNT, account.id):
        check_problem(await create_key(client, account), 503, "unavailable")
    assert causes(lines) == {"57014"}
    assert (await create_key(client, account)).status_code == 201


async def test_a_deadlock_is_a_503_is_counted_and_writes_nothing(
    start: Start,
    account: Account,
    database: asyncpg.Connection,
    lines: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.core.db._SERVER_SETTINGS", {"lock_timeout": "1min"})  # the deadlock is seen sooner
    client = await start(metrics_token=METRICS_TOKEN)
    for _ in looks():
        if (answer := await _answer_in_a_deadlock(client, account, database)) is not None:
            break
    assert answer is not None
    check_problem(answer, 503, "unavailable")
    assert causes(lines) == {"40P01"}
    assert (await nonzero(client, "database_errors"))["40P01"] == 1
    assert await database.fetchval("select count(*) from api_keys where name = 'deadlock'") == 0
    assert (await create_key(client, account, name="deadlock")).status_code == 201


async def _answer_in_a_deadlock(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> httpx2.Response | None:
    """The answer to a key whose transaction and one of ours wait for each other; None where PostgreSQL ended ours, as
    it does where it looks for deadlocks while ours has waited for a second and theirs for longer.
    """
    with suppress(asyncpg.DeadlockDetectedError):
        async with database.transaction():
            await database.execute("lock table api_keys in share mode")  # keys can be counted, and not deleted
            asked = asyncio.create_task(create_key(client, account, name="deadlock"))
            await blocked(database, "DELETE FROM api_keys")
            await database.execute(LOCK_ACCOUNT, account.id)
            return await asked
    assert (await asked).status_code == 201
    await database.execute("delete from api_keys where name = 'deadlock'")
    return None


@pytest.mark.usefixtures("a_pool_sooner_given_up_than_a_lock")
async def test_an_exhausted_pool_is_a_503_while_health_still_answers(
    start: Start, account: Account, key: Key, database: asyncpg.Connection, lines: list[EventDict]
) -> None:
    client = await start(database_pool_size=1)
    for _ in looks():  # the first sweep of the application takes the connection for a moment
        if (await create_key(client, account)).status_code == 201:
            break
    async with locked(database, LOCK_ACCOUNT, account.id):
        holds_the_only_connection = asyncio.create_task(create_key(client, account))
        await blocked(database)
        *answers, _ready = await ask_everything(client, account, key)
        for answer in answers:
            check_problem(answer, 503, "unavailable")
        assert (await client.get("/health")).status_code == 200
    assert PoolTimeoutError in causes(lines)
    assert (await holds_the_only_connection).status_code == 201
    assert [answer.status_code for answer in await ask_everything(client, account, key)][:4] == [200, 200, 201, 200]


async def test_a_connection_lost_in_a_transaction_is_a_503_and_leaves_nothing_behind(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, lines: list[EventDict]
) -> None:
    async with locked(database, LOCK_ACCOUNT, account.id):
        asked = asyncio.create_task(create_key(client, account, name="lost"))
        await database.execute("select pg_terminate_backend($1)", await blocked(database))
        check_problem(await asked, 503, "unavailable")
    assert len(causes(lines)) == 1
    assert await database.fetchval("select count(*) from api_keys where name = 'lost'") == 0
    assert (await create_key(client, account, name="lost")).status_code == 201


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53100", "57P01", "25006"])
@pytest.mark.usefixtures("commits_that_fail")
async def test_a_commit_that_fails_temporarily_is_a_503_and_never_a_success(
    start: Start, account: Account, key: Key, database: asyncpg.Connection, sqlstate: str
) -> None:
    client, doomed = await start(record_deadline_seconds=1), f"fail at commit with {sqlstate}"
    check_problem(await create_key(client, account, name=doomed), 503, "unavailable")
    answer = await generate(client, key, prompt=doomed)
    assert answer.json()["code"] in {"unavailable", "outcome_unknown"}
    check_problem(answer, 503, answer.json()["code"])
    assert (await generate(client, key)).status_code == 200
    assert await database.fetchval("select count(*) from api_keys where name = $1", doomed) == 0
    assert await database.fetchval("select count(*) from generations where prompt = $1", doomed) == 0


@pytest.mark.usefixtures("commits_that_fail")
async def test_a_commit_that_fails_permanently_is_a_500_or_outcome_unknown_and_never_a_success(
    start: Start, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    client, doomed = await start(record_deadline_seconds=1), "fail at commit with P0001"
    check_problem(await create_key(client, account, name=doomed), 500, "internal_error")
    check_problem(await generate(client, key, prompt=doomed), 503, "outcome_unknown")
    assert (await generate(client, key)).status_code == 200
    listed = await client.get("/v1/keys?limit=100", headers=account.headers)
    assert doomed not in listed.text
    assert await database.fetchval("select count(*) from generations where prompt = $1", doomed) == 0


@pytest.mark.parametrize(
    "statement",
    ["select 1/0", "select 'x'::integer", "select '0001-13-01'::date", "select 1 limit -1"],
)
async def test_a_value_that_the_validators_missed_is_a_422_and_is_logged(
    client: httpx2.AsyncClient,
    account: Account,
    lines: list[EventDict],
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
) -> None:
    async def fail(session: AsyncSession, **_: object) -> None:
        await session.execute(text(statement))

    monkeypatch.setattr("app.features.keys.service.create", fail)
    check_problem(await create_key(client, account), 422, "validation_error", more={"errors"})
    assert [line["event"] for line in lines] == ["validator_missing"]


async def test_text_that_the_database_cannot_store_is_a_422_even_without_a_validator(
    client: httpx2.AsyncClient, account: Account, lines: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.features.keys.service.new_id", lambda prefix: f"{prefix}_\0")
    check_problem(await create_key(client, account), 422, "validation_error", more={"errors"})
    assert causes(lines) == {"22021"}
