"""All images of a request are marked, renewed, cancelled, given back and swept together, whoever holds one."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.races import rows
from tests.generations.races.rows import Call
from tests.harness import Key, until_waited_for

_HOLD = "select from generations where id = $1 for update"


@pytest.mark.parametrize("held", [0, 2], ids=["the first", "the last"])
async def test_a_request_of_which_an_image_is_held_is_marked_and_renewed_as_a_whole_or_not(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], key: Key, held: int
) -> None:
    job = await rows.new_taken_job(writers[0], key, images=3)
    changed = "select sent_at, lease_until from generations where request_id = $1 group by 1, 2"
    [before] = await database.fetch(changed, job.id)
    async with database.transaction():
        await database.execute(_HOLD, job.ids[held])
        marks = await rows.mark_sent(job).run(writers[0])
        assert [tuple(each) for each in marks] == [(False, True)] * 3
        assert await rows.renew_leases(job, seconds=600).run(writers[0]) == []
    assert await database.fetch(changed, job.id) == [before]
    assert [each["marked"] for each in await rows.mark_sent(job).run(writers[0])] == [True] * 3


@pytest.mark.parametrize("image", [0, 1, 2])
@pytest.mark.parametrize("name", ["cancel", "give back", "sweep"])
async def test_a_request_that_is_marked_while_another_transaction_ends_it_is_ended_as_a_whole_or_not(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], key: Key, name: str, image: int
) -> None:
    """The other transaction has locked the images before this one, and waits for it."""
    job = await rows.new_taken_job(writers[0], key, images=3)
    if name == "sweep":
        await rows.lapse(database, job.id)
    calls: dict[str, Call] = {
        "cancel": rows.cancel_job(job.id),
        "give back": rows.give_back(job),
        "sweep": rows.sweep_jobs(),
    }
    async with database.transaction():
        await database.execute(_HOLD, job.ids[image])
        ending = asyncio.create_task(calls[name].run(writers[1]))
        await until_waited_for(database)
        await rows.mark_sent(job).run(writers[0])
    await ending
    sent = "select count(distinct (status, sent_at, lease_until)) from generations where request_id = $1"
    assert await database.fetchval(sent, job.id) == 1
    assert len(await ending) == 3
    assert await wrong_lanes(database) == []
