"""A statement without an answer is sent again: its generations are recorded once, and never assumed to be lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import asyncpg
import httpx2
import pytest
import structlog
from app.core.db import connect_for_writing
from app.generations.errors import InvalidApiKey, OutcomeUnknown
from app.generations.ledger import Ledger
from app.generations.ledger.queue import IdempotencyClaim, PendingRecord, Recorded
from app.generations.ledger.writer import Writer
from structlog.types import EventDict
from tests.conftest import Start
from tests.features.usage.recorded import (
    Line,
    assert_nothing_recorded,
    ids,
    locked,
    new_record,
    outcomes,
    total,
    until_waiting,
)
from tests.harness import Account, Key, generate, looks


@pytest.fixture
async def line(database_url: str, externals: dict[str, Any]) -> AsyncIterator[Line]:
    """The connection to the database of every ledger that the test starts."""
    line = Line(database_url)
    externals["connect"] = lambda: connect_for_writing(line.url)
    async with line.open():
        yield line


def _sent_before(record: PendingRecord) -> PendingRecord:
    """Marks the record as sent on a lost connection, with an unknown outcome."""
    record.was_sent = True
    return record


async def _until_refused(lines: Sequence[EventDict], *, times: int) -> None:
    for _ in looks():
        if len([line for line in lines if line["event"] == "ledger_refused"]) >= times:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was refused")


async def test_a_connection_that_ends_while_its_statement_waits_is_replaced_without_an_error(
    patient: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    waiting = "select pid from pg_locks where not granted and $1 = any(pg_blocking_pids(pid))"
    async with locked(database, key):
        call = asyncio.ensure_future(generate(patient, key))
        await until_waiting(database)
        await database.execute(f"select pg_terminate_backend(({waiting}))", database.get_server_pid())
        await until_waiting(database, 0)
        await until_waiting(database)
    assert (await call).status_code == 200
    assert await total(database, key) == 1


@pytest.mark.parametrize("revoked", [False, True], ids=["active", "revoked meanwhile"])
async def test_a_commit_whose_answer_is_lost_is_answered_once_the_database_is_back_and_counts_once(
    start: Start, account: Account, key: Key, database: asyncpg.Connection, line: Line, *, revoked: bool
) -> None:
    client = await start(record_deadline_seconds=60)
    # The second is queued behind everything that follows the first.
    earlier = [await generate(client, key) for _ in range(2)]
    line.lose_the_next_answer()
    call = asyncio.ensure_future(generate(client, key))
    await line.cut.wait()
    assert await total(database, key) == 3
    if revoked:
        await account.revoke_key(key)
    line.mended.set()
    assert (await call).status_code == 200
    assert await ids(database, key) == {answer.json()["id"] for answer in (*earlier, await call)}
    assert await total(database, key) == 3


async def test_a_generation_that_was_recorded_before_the_connection_was_lost_is_found_again(
    ledger: Ledger, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    records = [new_record(key) for _ in range(3)]
    first = await outcomes(ledger, *records)
    await account.revoke_key(key)
    again = [_sent_before(replace(each, outcome=asyncio.get_running_loop().create_future())) for each in records]
    assert await outcomes(ledger, *again) == first
    assert await total(database, key) == 3


async def test_a_generation_that_was_not_recorded_before_its_key_was_revoked_is_refused(
    ledger: Ledger, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    await account.revoke_key(key)
    [told] = await outcomes(ledger, _sent_before(new_record(key)))
    assert isinstance(told, InvalidApiKey)
    await assert_nothing_recorded(database, key)


async def test_a_revoked_key_that_sends_again_gets_no_other_keys_answer(
    ledger: Ledger, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    first, second = new_record(await account.create_key()), _sent_before(new_record(key))
    for record in (first, second):
        record.claim = IdempotencyClaim(sha256(key.raw.encode()).digest(), [bytes(32)])
    await ledger.record(first)
    await account.revoke_key(key)
    [told] = await outcomes(ledger, second)
    assert isinstance(told, InvalidApiKey)
    await assert_nothing_recorded(database, key)


async def test_a_generation_that_may_be_recorded_is_not_refused_because_its_key_is_locked(
    database_url: str, key: Key, database: asyncpg.Connection
) -> None:
    ledger = Ledger(Writer(partial(connect_for_writing, database_url)), queue_max=10, deadline_seconds=60)
    ledger.open()
    with structlog.testing.capture_logs() as lines:
        async with locked(database, key):
            recording = asyncio.ensure_future(ledger.record(_sent_before(new_record(key))))
            await _until_refused(lines, times=2)
            assert not recording.done()
    assert isinstance(await recording, Recorded)
    await ledger.close()
    assert await total(database, key) == 1


async def test_a_generation_that_may_be_recorded_is_not_refused_for_its_values(
    database_url: str, key: Key, database: asyncpg.Connection
) -> None:
    ledger = Ledger(Writer(partial(connect_for_writing, database_url)), queue_max=10, deadline_seconds=1)
    ledger.open()
    [told] = await outcomes(ledger, _sent_before(new_record(key, prompt="\0")))
    await ledger.close()
    assert isinstance(told, OutcomeUnknown)
    assert await ids(database, key) == set()
