"""The migration that lets generations wait: rows are written meanwhile, and it goes back and forth with rows."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import asyncpg
import pytest
from app.core.security import new_id
from tests.generations.races import rows
from tests.harness import fresh_database, until_waited_for
from tests.schema_dump import dump
from tests.version_before.history import connected, downgrade, upgrade
from tests.version_before.test_migrating_under_traffic import meanwhile

BEFORE = "c58a2e7f4d16"
_WRITE = """
insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status)
values ($1, $1, 'acc_a', 'live', 'key_a', 'A cute banana', '64x64', 'gemini', 'lost')
"""


@pytest.fixture
def its_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database of this version."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


def test_rows_are_written_while_it_builds_its_indexes_and_all_come_back(its_url: str) -> None:
    schema = dump(its_url)

    async def fill() -> Sequence[str]:
        async with connected(its_url) as database:
            key = await rows.new_key(database)
            running, waiting = await rows.new_taken_job(database, key), rows.new_claimed_job(key, images=2)
            await rows.recorded(database, waiting)
            return running.id, waiting.id

    async def write(database: asyncpg.Connection, is_ready: threading.Event) -> None:
        """The index waits for this transaction, and nobody waits for the index."""
        await database.execute(_WRITE, new_id("gen"))
        is_ready.set()
        await until_waited_for(database)
        async with connected(its_url) as other:
            await other.execute("set lock_timeout = '1s'")  # as the ledger's connection has it
            await other.execute(_WRITE, new_id("gen"))

    async def found(ids: Sequence[str]) -> tuple[int, list[set[str]]]:
        async with connected(its_url) as database:
            count = await database.fetchval("select count(*) from generations")
            return count, [await rows.statuses(database, each) for each in ids]

    ids = asyncio.run(fill())
    downgrade(its_url, BEFORE)
    with meanwhile(its_url, "create index concurrently", write):
        upgrade(its_url)
    assert dump(its_url) == schema
    assert asyncio.run(found(ids)) == (5, [{"processing"}, {"queued"}])
