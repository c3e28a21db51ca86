"""Fixtures for tests of what statements do to each other: a database that nobody else sweeps or takes jobs from."""

from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.generations.ledger import Ledger
from app.generations.ledger.writer import Writer
from tests.generations.races.rows import new_key
from tests.harness import Key, fresh_database
from tests.version_before.history import connected


@pytest.fixture(scope="session")
def jobs_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A migrated database of these tests' own. Deadlocks in it are found after 100 ms."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture
async def database(jobs_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to it. Nothing waits or runs when a test begins."""
    async with connected(jobs_url) as database:
        await database.execute(_EMPTY)
        yield database


@pytest.fixture
async def key(database: asyncpg.Connection) -> Key:
    """The key of a new account."""
    return await new_key(database)


_EMPTY = """
delete from generations; delete from lanes; delete from lane_keys; delete from claims; delete from usage;
delete from charges; update balances set held = 0, charged = 0, spent = 0 where held + charged + spent > 0;
update api_keys set held = 0, spent = 0 where held + spent > 0
"""


class Unswept(Writer):
    """A writer that sweeps nothing: that is left to the tests."""

    async def sweep(self) -> None:
        pass


@pytest.fixture
async def ledger(jobs_url: str) -> AsyncIterator[Ledger]:
    """A ledger of that database, which does not sweep."""
    ledger = Ledger(Unswept(partial(connect_for_writing, jobs_url)), queue_max=10_000, deadline_seconds=60)
    ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture(scope="session")
async def writers(jobs_url: str) -> AsyncIterator[Sequence[asyncpg.Connection]]:
    """Connections as ledgers have them, for statements that run at the same time."""
    writers = [await connect_for_writing(jobs_url) for _ in range(6)]
    yield writers
    for each in writers:
        await each.close()
