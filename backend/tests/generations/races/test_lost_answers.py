"""A connection that is lost after a statement about a job: it is carried out once, and the lanes count it once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import asyncpg
import pytest
from app.core.db import connect_for_writing
from app.core.errors import Invalid, Unavailable
from app.generations.errors import InvalidApiKey, OutcomeUnknown
from app.generations.ledger import Ledger
from app.generations.ledger.queue import PendingSettlement, Recorded
from tests.features.usage.recorded import Line, locked, outcomes, total
from tests.generations.jobs.lanes import leases_of, take, wrong_lanes
from tests.generations.money.sums import wrong_sums
from tests.generations.races import rows
from tests.generations.races.conftest import Unswept
from tests.harness import Key


@pytest.fixture
async def line(jobs_url: str) -> AsyncIterator[Line]:
    """The way of the ledger to its database."""
    line = Line(jobs_url)
    async with line.open():
        yield line


@pytest.fixture
async def ledger(line: Line) -> AsyncIterator[Ledger]:
    """A ledger on that line."""
    ledger = Ledger(Unswept(lambda: connect_for_writing(line.url)), queue_max=100, deadline_seconds=60)
    ledger.open()
    yield ledger
    await ledger.close()


async def lost(line: Line, call: Awaitable[object], *, then: Awaitable[object] | None = None) -> object:
    """What the call ends with whose first answer is lost, after the statement was committed. Before the line is mended,
    something else happens.
    """
    line.lose_the_next_answer()
    calling = asyncio.ensure_future(call)
    await line.cut.wait()
    line.cut.clear()
    if then is not None:
        await then
    line.mended.set()
    [result] = await asyncio.gather(calling, return_exceptions=True)
    return result


async def test_a_job_waits_once_however_often_it_is_sent(
    database: asyncpg.Connection, ledger: Ledger, line: Line, key: Key
) -> None:
    await ledger.record(rows.new_claimed_job(key))
    record, revoked = rows.new_claimed_job(key, images=2), rows.new_claimed_job(key)
    result = await lost(line, ledger.record(record))
    assert isinstance(result, Recorded)
    assert (result.ids, result.is_replay, result.is_unfinished) == (record.ids, False, True)
    assert await database.fetchval("select sum(waiting) from lanes") == 3
    result = await lost(line, ledger.record(revoked), then=rows.revoke(key.id).run(database))
    assert isinstance(result, Recorded), "it was accepted before the key was revoked"
    assert result.ids == revoked.ids
    assert isinstance(await lost(line, ledger.record(rows.new_claimed_job(key))), InvalidApiKey)
    assert await rows.taken(database) == []
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []


async def test_a_job_is_marked_and_settled_once_however_often_that_is_sent(
    database: asyncpg.Connection, ledger: Ledger, line: Line, key: Key
) -> None:
    # The first of each makes the connection know its statement, so that the next answer says that it has committed.
    before = await rows.new_taken_job(database, key, images=2)
    await ledger.mark_sent(before.ids, before.lease.token)
    await ledger.settle(PendingSettlement(recorded=before.record, ends={}))
    job = await rows.new_taken_job(database, key, images=2)
    assert await lost(line, ledger.mark_sent(job.ids, job.lease.token)) is None
    assert await database.fetchval("select count(sent_at) from generations where request_id = $1", job.id) == 2
    await ledger.settle(PendingSettlement(recorded=(await rows.new_taken_job(database, key)).record, ends={}))
    assert await lost(line, ledger.settle(PendingSettlement(recorded=job.record, ends={}))) is None
    assert await rows.statuses(database, job.id) == {"delivered"}
    assert await total(database, key) == 5
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []


async def test_jobs_whose_take_was_lost_wait_again_when_their_lease_is_over(
    database: asyncpg.Connection, ledger: Ledger, line: Line, key: Key
) -> None:
    record = rows.new_claimed_job(key, images=2)
    assert await take(ledger) == []
    await ledger.record(record)
    assert isinstance(await lost(line, take(ledger)), OutcomeUnknown)
    assert await rows.taken(database) == [], "a worker may have it"
    await rows.lapse(database, record.id)
    await rows.sweep_jobs().run(database)
    [job] = await take(ledger)
    assert (job.ids, job.attempts) == (record.ids, 2)
    await ledger.query("give_back_jobs", id=[], lease=[], key_id=[])
    given_back = ledger.query("give_back_jobs", **leases_of([job]), key_id=[key.id])
    assert isinstance(await lost(line, given_back), OutcomeUnknown)
    assert await ledger.query("give_back_jobs", **leases_of([job]), key_id=[key.id]) == []
    [job] = await take(ledger)
    assert (job.ids, job.attempts) == (record.ids, 2)
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []


async def test_one_row_that_cannot_be_stored_fails_alone(
    database: asyncpg.Connection, ledger: Ledger, key: Key
) -> None:
    good = [rows.new_claimed_job(key, images=2) for _ in range(3)]
    for place, (prompt, extra) in enumerate((("\0", None), ("A banana", '{"options": {"scope": "\\u0000"}}'))):
        bad = rows.new_claimed_job(key)
        bad.prompt, bad.extra = prompt, extra
        first, failed = await outcomes(ledger, good[place], bad)
        assert isinstance(first, Recorded)
        assert isinstance(failed, Invalid)
    assert await database.fetchval("select sum(waiting) from lanes") == 4
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []


async def test_a_key_or_a_lane_that_another_transaction_holds_stops_nobody_else(
    database: asyncpg.Connection, ledger: Ledger, key: Key
) -> None:
    """What it stops waits for it, or is refused; nothing is written of it."""
    free, sharing = await rows.new_key(database), await rows.new_key(database)
    await rows.recorded(database, *(rows.new_claimed_job(each) for each in (key, free, sharing)))
    stopped, passing = rows.new_claimed_job(key), rows.new_claimed_job(free)
    async with locked(database, key):
        held, result = await outcomes(ledger, stopped, passing)
    assert isinstance(held, Unavailable)
    assert isinstance(result, Recorded)
    lane = "select from lanes where account_id = (select account_id from api_keys where id = $1) for no key update"
    waiting, passing = rows.new_claimed_job(sharing), rows.new_claimed_job(free)
    async with database.transaction():
        await database.execute(lane, sharing.id)
        recording = asyncio.ensure_future(ledger.record(waiting))
        assert isinstance(await ledger.record(passing), Recorded)
        assert not recording.done()
    assert isinstance(await recording, Recorded)
    assert await rows.statuses(database, stopped.id) == set()
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []
