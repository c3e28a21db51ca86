"""A job that is to wait again has its Idempotency-Key again, or does not wait again."""

import asyncpg
import pytest
from app.generations.ledger import Ledger
from app.generations.ledger.queue import ImageEnd, PendingRecord, PendingSettlement
from tests.generations.jobs.lanes import take, wrong_lanes
from tests.generations.money.sums import wrong_sums
from tests.generations.races import rows
from tests.harness import Key

_CLAIM = "select generation_id, other_ids from claims where scope = $1"


async def end(ledger: Ledger, database: asyncpg.Connection, record: PendingRecord, how: str) -> None:
    """Records the job, and ends it without an image."""
    await ledger.record(record)
    if how == "cancelled":
        await ledger.query("cancel_job", request_id=record.id, error="cancelled")
        return
    [job] = await take(ledger)
    await ledger.mark_sent(job.ids, job.lease.token)
    if how == "failed":
        ends = dict.fromkeys(job.ids, ImageEnd("provider_failed"))
        await ledger.settle(PendingSettlement(recorded=job.record, ends=ends))
    else:
        await rows.lapse(database, record.id)
        await rows.sweep_jobs().run(database)


@pytest.mark.parametrize("how", ["cancelled", "failed", "lost"])
async def test_a_requeued_job_answers_for_its_idempotency_key_again(
    database: asyncpg.Connection, ledger: Ledger, key: Key, how: str
) -> None:
    record = rows.new_claimed_job(key, images=2)
    await end(ledger, database, record, how)
    assert await rows.statuses(database, record.id) == {how}
    requeued = await ledger.query("requeue_job", request_id=record.id, expires_seconds=3600)
    assert [each["id"] for each in requeued] == record.ids
    again = await ledger.record(rows.repetition_of(record))
    assert (again.ids, again.is_replay, again.is_unfinished) == (record.ids, True, True)
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []


@pytest.mark.parametrize("how", ["cancelled", "failed", "lost"])
async def test_a_job_whose_idempotency_key_belongs_to_another_request_now_is_not_requeued(
    database: asyncpg.Connection, ledger: Ledger, key: Key, how: str
) -> None:
    record = rows.new_claimed_job(key, images=2)
    await end(ledger, database, record, how)
    before = await database.fetch("select * from generations where request_id = $1 order by id", record.id)
    again = await ledger.record(repetition := rows.repetition_of(record))
    assert (again.ids, again.is_replay) == (repetition.ids, False)
    assert await ledger.query("requeue_job", request_id=record.id, expires_seconds=3600) == []
    assert await database.fetch("select * from generations where request_id = $1 order by id", record.id) == before
    assert tuple(await database.fetchrow(_CLAIM, record.scope) or ()) == (repetition.id, repetition.ids[1:])
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []
