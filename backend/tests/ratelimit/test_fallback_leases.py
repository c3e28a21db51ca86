"""Leases while Redis is in trouble: none is lost, and none that a process gave by itself concerns the others."""

import pytest
from app.ratelimit import Lease
from structlog.types import EventDict
from tests.ratelimit.processes import GROUP, TROUBLES, Start, until_left, until_returned
from tests.redis_server import RedisServer


async def test_leases_of_a_process_on_its_own_are_its_own(
    victim: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    [process, *_others] = await start()
    first, second, third, fourth = (Lease("key_ada", 1, 30, str(number)) for number in range(4))
    victim.stop()
    assert (await process.take(lease=first)).allowed
    assert (await process.take(lease=second)).crowded
    process.limiter.end(first, group=GROUP)
    assert (await process.take(lease=second)).allowed
    victim.start()
    await until_returned(lines)
    assert (await process.take(lease=third)).allowed
    process.limiter.end(second, group=GROUP)
    assert (await process.take(lease=fourth)).crowded
    process.limiter.end(third, group=GROUP)
    assert (await process.take(lease=fourth)).allowed


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not yet noticed"])
async def test_a_lease_that_ends_in_trouble_frees_its_place_when_limits_are_shared_again(
    victim: RedisServer, start: Start, lines: list[EventDict], *, noticed: bool
) -> None:
    [process, other, _] = await start()
    first, second = (Lease("key_ada", 1, 30, str(number)) for number in range(2))
    assert (await process.take(lease=first)).allowed
    TROUBLES["read-only"].begin(victim)
    if noticed:
        await until_left([process, other])
    process.limiter.end(first, group=GROUP)
    await until_left([process, other])
    TROUBLES["read-only"].end(victim)
    await until_returned(lines)
    await process.take("somebody else")
    assert (await other.take(lease=second)).allowed


async def test_a_lease_of_which_only_the_end_was_lost_is_ended_with_the_next_call(
    victim: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    [process, other, _] = await start()
    first, second = (Lease("key_ada", 1, 30, str(number)) for number in range(2))
    assert (await process.take(lease=first)).allowed
    TROUBLES["read-only"].begin(victim)
    process.limiter.end(first, group=GROUP)
    await process.shared.close()
    TROUBLES["read-only"].end(victim)
    assert lines == [], "nobody noticed"
    await process.take("somebody else")
    await process.shared.close()
    assert (await other.take(lease=second)).allowed


async def test_leases_that_a_process_gave_by_itself_are_not_sent_to_redis_afterwards(
    victim: RedisServer, start: Start, lines: list[EventDict]
) -> None:
    """After a long trouble there are more of them than Redis ends in time."""
    [process, *_others] = await start()
    shared = Lease("key_ada", 1, 30, "shared")
    assert (await process.take(lease=shared)).allowed
    victim.stop()
    for number in range(100):
        lease = Lease(f"key_{number}", 1, 30, str(number))
        assert (await process.take(f"key_{number}", lease=lease)).allowed
        process.limiter.end(lease, group=GROUP)
    process.limiter.end(shared, group=GROUP)
    victim.start()
    await until_returned(lines)
    await process.take("somebody else")
    assert process.shared.ended == [shared.id]
