"""Fixtures for tests of generations below HTTP."""

from collections.abc import AsyncIterator
from functools import partial

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
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger without an application."""
    ledger = Ledger(Writer(partial(connect_for_writing, database_url)), queue_max=1000, deadline_seconds=60)
    ledger.open()
    yield ledger
    await ledger.close()
