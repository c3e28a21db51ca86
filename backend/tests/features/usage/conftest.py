"""Fixtures for tests of recording."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from app.core.db import Connect
from app.generations.ledger import Ledger
from app.generations.ledger.writer import Writer
from tests.conftest import Start
from tests.harness import Account, Key


@pytest.fixture
async def key(account: Account) -> Key:
    """A key without calls."""
    return await account.create_key()


@pytest.fixture
async def ledger(patience: Connect) -> AsyncIterator[Ledger]:
    """A ledger without an application that waits for a lock while a test holds it."""
    ledger = Ledger(Writer(patience), queue_max=1000, deadline_seconds=60)
    ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture
async def patient(request: pytest.FixtureRequest, start: Start) -> httpx2.AsyncClient:
    """The application, whose ledger waits for a lock while a test holds it."""
    request.getfixturevalue("patience")
    return await start(record_deadline_seconds=60)
