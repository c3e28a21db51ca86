"""Nothing is drawn under a key that was revoked, or whose account was disabled, but what a worker has in hand."""

from collections.abc import Sequence

import asyncpg
import pytest
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.races import rows
from tests.harness import Key

STOPS = {
    "key_revoked": "update api_keys set revoked_at = now() where id = $1",
    "account_disabled": "update api_keys set is_suspended = true where id = $1",
}
_END = "select distinct status, error from generations where request_id = $1"


@pytest.mark.parametrize("error", STOPS)
@pytest.mark.parametrize("how", ["given back", "swept"])
async def test_what_a_worker_had_in_hand_does_not_wait_again_under_a_stopped_key(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], key: Key, how: str, error: str
) -> None:
    other = await rows.new_key(database)
    stopped, going = [await rows.new_taken_job(writers[0], each, images=2) for each in (key, other)]
    await database.execute(STOPS[error], key.id)
    await rows.lapse(database, stopped.id, going.id)
    call = rows.give_back(stopped, going) if how == "given back" else rows.sweep_jobs()
    assert {each["id"] for each in await call.run(writers[0])} == {*stopped.ids, *going.ids}
    assert await wrong_lanes(database) == []
    assert [tuple(each) for each in await database.fetch(_END, stopped.id)] == [("cancelled", error)]
    assert [job.ids for job in await rows.taken(writers[0])] == [going.ids]


@pytest.mark.parametrize("error", STOPS)
async def test_what_waits_under_a_key_that_the_version_before_has_stopped_is_not_taken(
    database: asyncpg.Connection, writers: Sequence[asyncpg.Connection], key: Key, error: str
) -> None:
    """It stops keys without cancelling what waits under them, of which it knows nothing."""
    stopped, going = rows.new_claimed_job(key), rows.new_claimed_job(await rows.new_key(database))
    await rows.recorded(writers[0], stopped, going)
    await database.execute(STOPS[error], key.id)
    assert [job.ids for job in await rows.taken(writers[0])] == [going.ids]
    assert await rows.taken(writers[0]) == []
    await rows.lapse(database, stopped.id)
    await rows.sweep_jobs().run(writers[0])
    assert await rows.statuses(database, stopped.id) == {"cancelled"}
    assert await wrong_lanes(database) == []
