"""The life of a job on the ledger: it waits, is taken, sent and settled once, and the lanes count what the rows say."""

from functools import partial

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.generations.errors import LeaseLostError, QueueFull
from app.generations.ledger import Ledger
from app.generations.ledger.queue import PendingSettlement
from app.generations.ledger.writer import Writer
from tests.features.usage.recorded import total
from tests.generations.jobs.lanes import leases_of, new_job, opened, take, wrong_lanes
from tests.harness import Account, Key

_STATUS = "select status from generations where id = $1"


async def test_a_job_waits_is_taken_sent_and_settled_once(
    ledger: Ledger, key: Key, database: asyncpg.Connection
) -> None:
    record = new_job(key)
    recorded = await ledger.record(record)
    assert (recorded.is_unfinished, recorded.is_replay) == (True, False)
    assert await database.fetchval(_STATUS, record.id) == "queued"
    assert await wrong_lanes(database) == []
    [job] = await take(ledger)
    assert (job.ids, job.prompt, job.attempts) == (record.ids, record.prompt, 1)
    assert await take(ledger) == []
    assert await wrong_lanes(database) == []
    await ledger.mark_sent(job.ids, job.lease.token)
    assert await ledger.query("cancel_job", request_id=job.id, error="cancelled") == []
    await ledger.settle(PendingSettlement(recorded=job.record, ends={}))
    await ledger.settle(PendingSettlement(recorded=job.record, ends={}))
    assert await database.fetchval(_STATUS, record.id) == "delivered"
    assert await total(database, key) == 1
    assert await wrong_lanes(database) == []
    assert await database.fetchval("select waiting + running from lanes") == 0


async def test_what_waits_is_cancelled_and_never_sent(ledger: Ledger, key: Key, database: asyncpg.Connection) -> None:
    waiting, taken = new_job(key), new_job(key)
    await ledger.record(taken)
    [job] = await take(ledger)
    await ledger.record(waiting)
    for each in (waiting, taken):
        assert [
            row["id"] for row in await ledger.query("cancel_job", request_id=each.id, error="cancelled")
        ] == each.ids
        assert await ledger.query("cancel_job", request_id=each.id, error="cancelled") == []
        assert await database.fetchval(_STATUS, each.id) == "cancelled"
    with pytest.raises(LeaseLostError):
        await ledger.mark_sent(job.ids, job.lease.token)
    with pytest.raises(LeaseLostError):
        await ledger.settle(PendingSettlement(recorded=job.record, ends={}))
    assert await take(ledger) == []
    assert await wrong_lanes(database) == []
    assert await total(database, key) == 0


async def test_what_is_given_back_is_taken_again_as_if_nothing_had_been(
    ledger: Ledger, key: Key, database: asyncpg.Connection
) -> None:
    await ledger.record(new_job(key))
    [first] = await take(ledger)
    await ledger.query("give_back_jobs", **leases_of([first]), key_id=[key.id])
    assert await wrong_lanes(database) == []
    [second] = await take(ledger)
    assert (second.ids, second.attempts) == (first.ids, 1)
    assert second.lease.token != first.lease.token


async def test_an_account_has_no_more_waiting_than_it_may(
    database_url: str, key: Key, database: asyncpg.Connection
) -> None:
    writer = Writer(partial(connect_for_writing, database_url))
    writer.waiting_max = 2
    async with opened(writer) as ledger:
        await _fill(ledger, key)
    assert await wrong_lanes(database) == []


async def _fill(ledger: Ledger, key: Key) -> None:
    for _ in range(2):
        await ledger.record(new_job(key))
    with pytest.raises(QueueFull):
        await ledger.record(new_job(key))
    await take(ledger)
    await ledger.record(new_job(key))


async def test_an_account_and_a_key_have_no_more_running_than_they_may(
    ledger: Ledger, account: Account, database: asyncpg.Connection
) -> None:
    keys = [await account.create_key() for _ in range(2)]
    for key in keys:
        for _ in range(4):
            await ledger.record(new_job(key))
    taken = [job for _ in range(9) for job in await take(ledger, account_most=5, key_most=3)]
    by_key = [sum(job.key_id == key.id for job in taken) for key in keys]
    assert sorted(by_key) == [2, 3]
    assert await wrong_lanes(database) == []
