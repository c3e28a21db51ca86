"""Fixtures for tests of generations below HTTP."""

from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.generations.ledger import Ledger
from app.generations.ledger.writer import Writer
from tests.harness import Account, Key


@pytest.fixture
async def key(account: Account) -> Key:
    """A key without calls."""
    return await account.create_key()


@pytest.fixture
async def ledger(database_url: str, database: asyncpg.Connection) -> AsyncIterator[Ledger]:
    """A ledger without an application. Nothing waits: what tests before have left waiting is cancelled, since a worker
    takes whatever waits.
    """
    ledger = Ledger(Writer(partial(connect_for_writing, database_url)), queue_max=1000, deadline_seconds=60)
    ledger.open()
    for (request_id,) in await database.fetch("select distinct request_id from generations where status = 'queued'"):
        await ledger.query("cancel_job", request_id=request_id, error="cancelled")
    yield ledger
    await ledger.close()
