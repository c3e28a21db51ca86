"""A migration that is killed between any two statements is run again, and finishes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from app.core import online_migrations
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError
from tests.harness import looks
from tests.schema_dump import dump
from tests.version_before.history import connected, downgrade, stored, upgrade

_ROWS_AT_ONCE = 4


class KilledError(Exception):
    """The migration was killed."""


@contextmanager
def killed_before(number: int) -> Iterator[list[str]]:
    """Ends the connection of a migration before its statement of this number, of those that change anything; yields the
    statements up to there. Nothing that the migration does then reaches the database.
    """
    changes: list[str] = []

    def count(connection: Connection, _cursor: object, statement: str, *_more: object) -> None:
        if not statement.lstrip().lower().startswith(("select", "show", "set ")):
            changes.append(statement)
        if len(changes) == number:
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.terminate()
            raise KilledError

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield changes
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def kill_at_every_step(migrate: Callable[[str], None], database_url: str) -> int:
    """Runs the migration again and again until it finishes: killed before the first statement of a revision, then
    before the second, and so on through every revision; how often it was killed.
    """
    kills, number, revision = 0, 1, asyncio.run(_revision(database_url))
    while True:
        with killed_before(number) as changes:
            try:
                migrate(database_url)
            except Exception:
                if len(changes) < number:
                    raise  # it was not killed: it failed
            else:
                return kills
        there = asyncio.run(_revision(database_url))
        kills, number, revision = kills + 1, 1 if there != revision else number + 1, there


async def _revision(database_url: str) -> str:
    async with connected(database_url) as database:
        return str(await database.fetchval("select version_num from alembic_version"))


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few rows, so that a migration is killed between them too."""
    in_batches = online_migrations.OnlineSteps.execute_in_batches

    def in_small_batches(steps: online_migrations.OnlineSteps, statement: str, *, at_once: int) -> None:
        assert at_once > _ROWS_AT_ONCE
        in_batches(steps, statement, at_once=_ROWS_AT_ONCE)

    monkeypatch.setattr(online_migrations.OnlineSteps, "execute_in_batches", in_small_batches)


@pytest.mark.usefixtures("_small_batches")
def test_a_migration_that_is_killed_before_every_statement_finishes(old_database_url: str, database_url: str) -> None:
    before = dump(old_database_url), asyncio.run(stored(old_database_url))
    assert kill_at_every_step(upgrade, old_database_url) > 35
    assert dump(old_database_url) == dump(database_url)
    assert kill_at_every_step(downgrade, old_database_url) > 15
    assert (dump(old_database_url), asyncio.run(stored(old_database_url))) == before


_HALF_BUILT = "select count(*) from pg_index where not indisvalid"
_END_MIGRATION = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where datname = current_database() and query like 'create index concurrently%'
"""


def test_an_index_that_was_left_half_built_is_built_anew(old_database_url: str, database_url: str) -> None:
    """Killed while it waits for a transaction that began before."""

    async def kill() -> None:
        async with connected(old_database_url) as holder, connected(old_database_url) as database:
            await holder.execute("begin isolation level repeatable read; select count(*) from users")
            migration = asyncio.create_task(asyncio.to_thread(upgrade, old_database_url))
            for _ in looks():
                if await database.fetchval(_HALF_BUILT) and await database.fetchval(_END_MIGRATION):
                    break
                await asyncio.sleep(0.05)
            with pytest.raises(SQLAlchemyError):
                await migration
            assert await database.fetchval(_HALF_BUILT) == 1

    asyncio.run(kill())
    upgrade(old_database_url)
    assert dump(old_database_url) == dump(database_url)

    async def count_half_built() -> int:
        async with connected(old_database_url) as database:
            return int(await database.fetchval(_HALF_BUILT))

    assert asyncio.run(count_half_built()) == 0
