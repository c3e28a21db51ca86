"""Two that decide about one job at the same moment: what comes of it is what comes of one after the other, and the
lanes and what is held and charged are exact. 40 times each; with CHAOS=long, 1,000 times.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import asyncpg
import pytest
from app.generations.jobs.job import Job
from tests.chaos.schedule import Schedule, times
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.money.sums import wrong_sums
from tests.generations.races import rows
from tests.generations.races.rows import Call

TIMES = times(short=40, long=1000)
DELAY_SECONDS = 0.001
"""About as long as a statement takes: the second begins before, while and after the first is carried out."""


class Side(NamedTuple):
    """One that decides about a job: by which call, and whether its rows say that it has."""

    call: Callable[[Job], Call]
    has_won: Callable[[Job, Sequence[asyncpg.Record]], bool]
    waits: bool = True
    """False where it may do nothing because another is at it, and is to be asked for again."""


def _named(job: Job, found: Sequence[asyncpg.Record]) -> bool:
    return set(job.ids) <= {each["id"] for each in found}


SIDES = {
    "take": Side(lambda _: rows.take_jobs(), _named, waits=False),
    "send": Side(rows.mark_sent, lambda _, found: all(row["marked"] for row in found), waits=False),
    "renew": Side(rows.renew_leases, lambda *_: False, waits=False),
    "settle": Side(rows.settle, lambda _, found: found[0]["settled"]),
    "give back": Side(rows.give_back, _named),
    "cancel": Side(lambda job: rows.cancel_job(job.id), _named),
    "revoke": Side(lambda job: rows.revoke(job.key_id), _named),
    "sweep": Side(lambda _: rows.sweep_jobs(), _named),
    "requeue": Side(lambda job: rows.requeue_job(job.id), _named),
}

RUNNING, SENT, WAITING, LAPSED, SENT_AND_LAPSED, CANCELLED = "", "send", "give back", "lapse", "send lapse", "cancel"
"""What is done with a job that was taken before two decide about it."""

RACES = [
    ("cancel", "take", WAITING),
    ("cancel", "send", RUNNING),
    ("cancel", "settle", RUNNING),
    ("cancel", "settle", SENT),
    ("sweep", "settle", LAPSED),
    ("sweep", "settle", SENT_AND_LAPSED),
    ("sweep", "send", LAPSED),
    ("sweep", "renew", LAPSED),
    ("sweep", "give back", LAPSED),
    ("sweep", "cancel", LAPSED),
    ("revoke", "take", WAITING),
    ("revoke", "settle", SENT),
    ("revoke", "give back", RUNNING),
    ("revoke", "sweep", LAPSED),
    ("requeue", "cancel", CANCELLED),
    ("requeue", "sweep", CANCELLED),
    ("requeue", "requeue", CANCELLED),
    ("send", "give back", RUNNING),
    ("take", "take", WAITING),
]

_END = """
select status, sent_at is not null, attempts, error, lease_until < now(), count(*),
  (select count(*) from claims where generation_id = $1)
from generations where request_id = $1 group by 1, 2, 3, 4, 5
"""


async def prepared(connection: asyncpg.Connection, job: Job, state: str) -> None:
    """Brings a job that was taken into this state."""
    steps = {"send": rows.mark_sent(job), "give back": rows.give_back(job), "cancel": rows.cancel_job(job.id)}
    for each in [state] if state in steps else state.split():
        if each == "lapse":
            await rows.lapse(connection, job.id)
        else:
            await steps[each].run(connection)


async def outcome(database: asyncpg.Connection, job: Job, *won: bool) -> tuple[object, ...]:
    """Who has won, and what the job and its claim are now: the same for all its images."""
    [end] = await database.fetch(_END, job.id)
    return *won, *end


async def one_after_the_other(
    database: asyncpg.Connection, jobs: Sequence[Job], state: str, first: Side, second: Side
) -> set[tuple[object, ...]]:
    """What may come of it: of each before the other; and where one may do nothing for now, of the other alone."""
    expected = set()
    orders = [[0, 1], [1, 0]] + [[1 - place] for place, side in enumerate((first, second)) if not side.waits]
    for job, order in zip(jobs, orders, strict=False):
        await prepared(database, job, state)
        won = [False, False]
        for place in order:
            side = (first, second)[place]
            won[place] = side.has_won(job, await side.call(job).run(database))
        expected.add(await outcome(database, job, *won))
    return expected


@pytest.mark.parametrize(("first", "second", "state"), RACES)
async def test_two_at_once_are_one_after_the_other(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], first: str, second: str, state: str
) -> None:
    jobs = await rows.new_taken_jobs(database, TIMES + 4)
    sides = SIDES[first], SIDES[second]
    expected = await one_after_the_other(database, jobs[:4], state, *sides)
    delays = Schedule(f"{first} {second} {state}")

    async def decide(place: int, job: Job) -> bool:
        await asyncio.sleep(max(0, delays.between(-DELAY_SECONDS, DELAY_SECONDS)))
        return sides[place].has_won(job, await sides[place].call(job).run(writers[place]))

    for job in jobs[4:]:
        await prepared(database, job, state)
        won = await asyncio.gather(decide(0, job), decide(1, job))
        assert await outcome(database, job, *won) in expected
    assert await wrong_lanes(database) == []
    assert await wrong_sums(database) == []
