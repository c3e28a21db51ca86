"""Slots while Redis does not decide: none is lost, and those that a process gave by itself stay its own."""

import pytest
from app.ratelimit import Slot
from structlog.types import EventDict
from tests.ratelimit.processes import FAULTS, GROUP, Start, until_ended, until_noticed
from tests.redis_server import RedisServer


async def test_slots_taken_in_an_outage_are_those_of_the_process_alone(
    faulty_redis: RedisServer, start: Start, log_lines: list[EventDict]
) -> None:
    [process, *_others] = await start()
    first, second, third, fourth = (Slot("key_ada", 1, 30, str(number)) for number in range(4))
    faulty_redis.stop()
    assert (await process.take(slot=first)).allowed
    assert (await process.take(slot=second)).no_free_slot
    process.limiter.release(first, group=GROUP)
    assert (await process.take(slot=second)).allowed
    faulty_redis.start()
    await until_ended(log_lines)
    assert (await process.take(slot=third)).allowed
    process.limiter.release(second, group=GROUP)
    assert (await process.take(slot=fourth)).no_free_slot
    process.limiter.release(third, group=GROUP)
    assert (await process.take(slot=fourth)).allowed


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not yet noticed"])
async def test_a_slot_released_in_an_outage_is_free_once_limits_are_shared_again(
    faulty_redis: RedisServer, start: Start, log_lines: list[EventDict], *, noticed: bool
) -> None:
    [process, other, _] = await start()
    first, second = (Slot("key_ada", 1, 30, str(number)) for number in range(2))
    assert (await process.take(slot=first)).allowed
    FAULTS["read-only"].begin(faulty_redis)
    if noticed:
        await until_noticed([process, other])
    process.limiter.release(first, group=GROUP)
    await until_noticed([process, other])
    FAULTS["read-only"].end(faulty_redis)
    await until_ended(log_lines)
    await process.take("key_other")
    assert (await other.take(slot=second)).allowed


async def test_a_release_that_alone_was_lost_is_repeated_with_the_next_call(
    faulty_redis: RedisServer, start: Start, log_lines: list[EventDict]
) -> None:
    [process, other, _] = await start()
    first, second = (Slot("key_ada", 1, 30, str(number)) for number in range(2))
    assert (await process.take(slot=first)).allowed
    FAULTS["read-only"].begin(faulty_redis)
    process.limiter.release(first, group=GROUP)
    await process.shared.close()
    FAULTS["read-only"].end(faulty_redis)
    assert log_lines == [], "an outage was noticed"
    await process.take("key_other")
    await process.shared.close()
    assert (await other.take(slot=second)).allowed


async def test_slots_taken_in_an_outage_are_not_released_in_redis_afterwards(
    faulty_redis: RedisServer, start: Start, log_lines: list[EventDict]
) -> None:
    """After a long outage there are more of them than Redis could release in time."""
    [process, *_others] = await start()
    shared = Slot("key_ada", 1, 30, "shared")
    assert (await process.take(slot=shared)).allowed
    faulty_redis.stop()
    for number in range(100):
        slot = Slot(f"key_{number}", 1, 30, str(number))
        assert (await process.take(f"key_{number}", slot=slot)).allowed
        process.limiter.release(slot, group=GROUP)
    process.limiter.release(shared, group=GROUP)
    faulty_redis.start()
    await until_ended(log_lines)
    await process.take("key_other")
    assert process.shared.released == [shared.id]
