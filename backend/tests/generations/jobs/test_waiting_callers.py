"""Callers who wait for a change are woken whatever the database has answered before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from app.core.bell import Bell
from app.core.db import classify_database_error
from app.generations.jobs import waiting
from app.generations.jobs.waiting import WaitingCallers
from sqlalchemy.exc import DBAPIError
from tests.harness import PATIENCE_SECONDS

DEFECT = DBAPIError("select", None, asyncpg.exceptions.DataCorruptedError("invalid page in block 7"))


async def never() -> asyncpg.Connection:
    await asyncio.Event().wait()
    raise AssertionError


class Sessions:
    """Fails once, and then says that every generation is delivered."""

    def __init__(self) -> None:
        self._errors = [DEFECT]

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        if self._errors:
            raise self._errors.pop()
        yield self

    async def execute(self, _statement: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(id="gen_1", status="delivered")]


async def test_an_error_of_the_database_that_nobody_expects_ends_the_waking_of_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert classify_database_error(DEFECT) is None
    monkeypatch.setattr(waiting, "_POLL_SECONDS", 0.01)
    generations: Any = SimpleNamespace(sessions=Sessions(), bell=Bell(never))
    callers = WaitingCallers(generations, most=4)
    waking = asyncio.create_task(callers.run())
    with callers.enter("acc_1") as caller:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await caller.until_changed("gen_1", seen="processing", seconds=2 * PATIENCE_SECONDS)
    assert not waking.done()
    waking.cancel()
