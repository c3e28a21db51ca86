"""A migration that is killed between any two statements is run again, and finishes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from app.migrations import online as online_migrations
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError
from tests.harness import looks
from tests.schema_dump import dump
from tests.version_before.history import connected, downgrade, stored, upgrade

_ROWS_AT_ONCE = 4
_READING = ("select", "show", "set ")


class KilledError(Exception):
    """The migration was killed."""


@contextmanager
def killed_after_one_step(known: set[str]) -> Iterator[None]:
    """Lets a migration execute one statement that is not among the known ones, adds it to them, and ends the connection
    before the next statement. Nothing that the migration does then reaches the database.
    """
    new: list[str] = []

    def look(connection: Connection, _cursor: object, statement: str, parameters: object, *_more: object) -> None:
        if new:
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.terminate()
            raise KilledError
        if (step := f"{statement} {parameters}") not in known and not statement.startswith(_READING):
            known.add(step)
            new.append(step)

    event.listen(Engine, "before_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", look)


def kill_after_every_step(migrate: Callable[[str], None], database_url: str) -> int:
    """Runs the migration again and again until it finishes, each time killed a step later. How often it was killed."""
    known: set[str] = set()
    while True:
        steps = len(known)
        with killed_after_one_step(known):
            try:
                migrate(database_url)
            except Exception:
                if len(known) == steps:
                    raise  # it was not killed: it failed
            else:
                return steps


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few rows, so that a migration is killed between them too."""
    in_batches = online_migrations.OnlineSteps.execute_in_batches

    def in_small_batches(steps: online_migrations.OnlineSteps, statement: str, *, at_once: int) -> None:
        assert at_once > _ROWS_AT_ONCE
        in_batches(steps, statement, at_once=_ROWS_AT_ONCE)

    monkeypatch.setattr(online_migrations.OnlineSteps, "execute_in_batches", in_small_batches)


@pytest.mark.usefixtures("_small_batches")
def test_a_migration_that_is_killed_after_every_step_finishes(old_database_url: str, database_url: str) -> None:
    before = dump(old_database_url), asyncio.run(stored(old_database_url))
    assert kill_after_every_step(upgrade, old_database_url) > 50
    assert dump(old_database_url) == dump(database_url)
    assert kill_after_every_step(downgrade, old_database_url) > 25
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
