"""Fixtures for tests of money: a database that nobody else sweeps or takes jobs from."""

from collections.abc import AsyncIterator, Iterator, Sequence

import asyncpg
import pytest
from app.core.db import connect_for_writing
from tests.harness import fresh_database
from tests.version_before.history import connected


@pytest.fixture(scope="session")
def money_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A migrated database of these tests' own. Deadlocks in it are found after 100 ms."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="session")
async def connection(money_url: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(money_url) as connection:
        yield connection


@pytest.fixture
async def database(connection: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to it, which knows its statements. Nothing is held or charged when a test begins."""
    await connection.execute(_EMPTY)
    return connection


@pytest.fixture(scope="session")
async def writers(money_url: str) -> AsyncIterator[Sequence[asyncpg.Connection]]:
    """Connections as ledgers have them, for statements that run at the same time."""
    writers = [await connect_for_writing(money_url) for _ in range(3)]
    yield writers
    for each in writers:
        await each.close()


_EMPTY = """
delete from generations; delete from lanes; delete from lane_keys; delete from claims; delete from usage;
delete from charges; delete from balances; delete from api_keys; delete from accounts; set timezone = 'UTC'
"""
