"""The version before serves while its database is migrated, and while it is brought back."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime

import asyncpg
from app.core.security import new_id, time_prefix
from sqlalchemy import Engine, event
from tests.harness import PATIENCE_SECONDS, looks
from tests.version_before import statements as old
from tests.version_before.calls import create_key, record, register
from tests.version_before.history import connected, downgrade, upgrade_to_next
from tests.version_before.rows import Rows, digest

_DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
_EQUAL = """
select (select sum(pictures) from usage) = (select count(*) from generations where status = 'delivered')
"""


_DIFFERING_ACCOUNTS = """
select count(*) from users u left join accounts a on a.id = 'acc_' || substr(u.id, 5)
where a.id is null or u.generate_limit is distinct from a.generate_limit
"""
_CONNECTIONS = 4


async def _work(database: asyncpg.Connection, rows: Rows, is_over: asyncio.Event) -> int:
    """Does everything that changes rows, again and again; how often."""
    key_id, turns = rows.ada.keys["live"].id, 0
    while not is_over.is_set():
        turns += 1
        scope = digest(new_id("scope"))
        await record(database, key_id, scope=scope)
        [drawn] = await record(database, key_id, status="processing", scope=scope[::-1], lease=60)
        [settled] = await database.fetch(old.SETTLE, [drawn], [drawn], [key_id], ["delivered"], [scope[::-1]])
        assert settled["settled"]
        await record(database, key_id, status="processing", scope=scope[1:] + scope[:1], lease=-1)
        await database.fetch(old.TAKE_OVER, scope[1:] + scope[:1])
        person = await register(database)
        made = await create_key(database, person)
        await database.fetch(old.LIMIT_ACCOUNT, "9/hour", person.email)
        await database.execute(old.REVOKE, datetime.now(UTC), made)
        assert await database.fetch(old.LIST, "delivered", 5, rows.ada.id, "live", 5)
        await database.fetch(old.GIVE_UP, "lost", "processing", datetime.now(UTC) - datetime.fromtimestamp(0, UTC))
    return turns


async def test_nothing_fails_or_is_lost(old_database_url: str, rows: Rows) -> None:
    is_over = asyncio.Event()
    async with AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(connected(old_database_url)) for _ in range(_CONNECTIONS)]
        for writer in writers:
            await writer.execute("set lock_timeout = '1s'")  # as the ledger's connection has it
        working = [asyncio.create_task(_work(writer, rows, is_over)) for writer in writers]
        for migrate in (upgrade_to_next, downgrade, upgrade_to_next):
            await asyncio.to_thread(migrate, old_database_url)
        is_over.set()
        assert min(await asyncio.gather(*working)) > 0
        [database, *_] = writers
        assert await database.fetchval(_DEADLOCKS) == 0
        assert await database.fetchval(_EQUAL)
        unmade = (
            "select count(*) from users u where not exists (select from accounts where id = 'acc_' || substr(u.id, 5))"
        )
        assert await database.fetchval(unmade) == 0
        differing = """
            select count(*) from users u join accounts a on a.id = 'acc_' || substr(u.id, 5)
            where u.generate_limit is distinct from a.generate_limit
        """
        assert await database.fetchval(differing) == 0
        today = datetime.now(UTC).date()
        midnight = time_prefix("gen", datetime(today.year, today.month, today.day, tzinfo=UTC))
        assert await database.fetch(old.RECONCILE, midnight, "gen_z", today) == []


@contextmanager
def just_before(part: str, action: Callable[[], None]) -> Iterator[None]:
    """Runs the action once, right before a migration executes the statement that has this part."""
    done: list[str] = []

    def look(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if part in statement and not done:
            done.append(statement)
            action()

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", look)
    assert done


@contextmanager
def meanwhile(
    database_url: str, part: str, action: Callable[[asyncpg.Connection, threading.Event], Awaitable[None]]
) -> Iterator[None]:
    """Runs the action in a transaction, from right before a migration executes the statement that has this part. The
    migration goes on when the action has set the event. Raises what the action raises.
    """
    is_ready = threading.Event()

    async def run() -> None:
        async with connected(database_url) as database, database.transaction():
            await action(database, is_ready)

    with ThreadPoolExecutor(1) as pool:
        futures: list[Future[None]] = []

        def start() -> None:
            futures.append(pool.submit(lambda: asyncio.run(run())))
            assert is_ready.wait(PATIENCE_SECONDS)

        with just_before(part, start):
            yield
        futures[0].result()


def test_a_limit_that_changes_while_accounts_are_made_is_the_accounts_too(old_database_url: str, rows: Rows) -> None:
    """The change is not committed when its user's account is made."""

    async def change(database: asyncpg.Connection, is_ready: threading.Event) -> None:
        await database.fetch(old.LIMIT_ACCOUNT, "9/hour", rows.ada.email)
        is_ready.set()
        await asyncio.sleep(0.3)

    with meanwhile(old_database_url, "from batch on conflict do nothing", change):
        upgrade_to_next(old_database_url)

    async def limit() -> str:
        async with connected(old_database_url) as database:
            query = "select generate_limit from accounts where id = $1"
            return str(await database.fetchval(query, rows.ada.account_id))

    assert asyncio.run(limit()) == "9/hour"


_WAITING_FOR_KEYS = "select count(*) from pg_locks where not granted and relation = 'api_keys'::regclass"


def test_a_batch_that_has_locked_its_keys_gets_its_generations_while_the_foreign_key_is_dropped(
    old_database_url: str, rows: Rows
) -> None:
    """Both tables are locked for that: in the ledger's order, and never one while the other is waited for."""

    async def record_slowly(database: asyncpg.Connection, is_ready: threading.Event) -> None:
        await database.execute("select id from api_keys where id = $1 for no key update", rows.ada.keys["live"].id)
        is_ready.set()
        for _ in looks():
            if await database.fetchval(_WAITING_FOR_KEYS):
                break
        await record(database, rows.ada.keys["live"].id)

    with meanwhile(old_database_url, "drop constraint if exists generations_key_id_fkey", record_slowly):
        upgrade_to_next(old_database_url)
