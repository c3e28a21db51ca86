"""Many at once: jobs that are recorded, revoked, taken and repeated by several processes."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import asyncpg
from app.core.security import new_id
from app.generations.errors import InvalidApiKey
from app.generations.ledger import Ledger
from app.generations.ledger.queue import Recorded
from tests.chaos.schedule import Schedule, times
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.money.sums import wrong_sums
from tests.generations.races import rows
from tests.harness import Key

_IS_OLD = "update claims set created_at = now() - interval '25 hours' where scope = $1"
TIMES = times(short=40, long=1000)
DELAY_SECONDS = 0.002


async def test_two_record_and_four_take_and_none_is_taken_twice(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection]
) -> None:
    keys = [await rows.new_key(database) for _ in range(5)]
    batches = 5 * TIMES // 40
    await rows.recorded(database, *(rows.new_claimed_job(key) for key in keys))
    is_over = asyncio.Event()
    taken: Counter[str] = Counter()

    async def record(writer: asyncpg.Connection) -> None:
        for place in range(batches):
            price = place % 2 * rows.PRICE
            batch = [rows.new_claimed_job(key, images=2, price=price) for key in keys]
            await rows.record_queued(*batch).run(writer)

    async def take(writer: asyncpg.Connection) -> None:
        while not is_over.is_set() or await writer.fetchval("select sum(waiting) from lanes"):
            for job in await rows.taken(writer, jobs_max=3):
                taken.update(job.ids)
                await rows.settle(job).run(writer)

    taking = [asyncio.create_task(take(writer)) for writer in writers[2:]]
    await asyncio.gather(*(record(writer) for writer in writers[:2]))
    is_over.set()
    await asyncio.gather(*taking)
    assert set(taken.values()) == {1}
    assert len(taken) == len(keys) * (1 + 2 * 2 * batches)
    ended = await database.fetch("select status, count(*) from generations group by 1")
    assert [tuple(each) for each in ended] == [("delivered", len(taken))]
    assert await database.fetchval("select sum(pictures) from usage") == len(taken)
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []
    assert await database.fetchval("select sum(waiting + running) from lanes") == 0


async def test_nothing_waits_under_a_key_that_is_revoked_while_its_job_is_recorded(
    database: asyncpg.Connection, ledger: Ledger, writers: Sequence[asyncpg.Connection]
) -> None:
    delays, results = Schedule("revoked while recorded"), Counter[str]()
    for _ in range(TIMES):
        record = rows.new_claimed_job(await rows.new_key(database), images=2)
        recording = asyncio.create_task(ledger.record(record))
        await asyncio.sleep(delays.between(0, 2 * DELAY_SECONDS))
        await rows.revoke(record.key_id).run(writers[0])
        [result] = await asyncio.gather(recording, return_exceptions=True)
        assert isinstance(result, Recorded | InvalidApiKey)
        results[type(result).__name__] += 1
        assert await rows.statuses(database, record.id) == ({"cancelled"} if isinstance(result, Recorded) else set())
    assert await rows.taken(database) == []
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []


async def test_an_idempotency_key_that_is_repeated_while_its_job_is_requeued_has_one_generation_that_waits(
    database: asyncpg.Connection, ledger: Ledger, writers: Sequence[asyncpg.Connection]
) -> None:
    delays = Schedule("repeated while requeued")

    async def repeat_while_requeued(writer: asyncpg.Connection, *keys: Key) -> None:
        for number in range(TIMES // len(writers) + 1):
            record = rows.new_claimed_job(keys[0], images=2)
            await ledger.record(record)
            await rows.cancel_job(record.id).run(writer)
            if number % 2:
                await writer.execute(_IS_OLD, record.scope)
            repeating = asyncio.create_task(ledger.record(repetition := rows.repetition_of(record, keys[1])))
            await asyncio.sleep(max(0, delays.between(-DELAY_SECONDS, 3 * DELAY_SECONDS)))
            requeued = await rows.requeue_job(record.id).run(writer)
            repeated = await repeating
            assert repeated.is_replay == bool(requeued)
            assert repeated.ids == (record.ids if requeued else repetition.ids)
            await rows.cancel_job(repeated.ids[0]).run(writer)

    accounts = [new_id("acc") for _ in writers]
    keys = [[await rows.new_key(database, account_id=each) for _ in range(2)] for each in accounts]
    await asyncio.gather(*(repeat_while_requeued(writer, *two) for writer, two in zip(writers, keys, strict=True)))
    assert await rows.taken(database) == []
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []
