"""What the limiter in Redis guarantees beyond the contract: its round trips, and what it stores."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from app.ratelimit import MICROSECONDS, Limit, Slot, Take, TakeResult
from app.ratelimit.batches import BATCH_MAX
from app.ratelimit.redis import RedisLimiter, open_redis
from redis.asyncio import Redis
from redis.crc import key_slot
from tests.ratelimit.sync_limiter import PATIENCE_SECONDS, Clock, NewRedisLimiter
from tests.redis_server import RedisServer

LIMIT = Limit(5, 3600)
SLOT = Slot("key_canary", 3, 30, "b1f2-7")
CANARIES = ("usr_canary", "key_canary", "ada@example.com", "203.0.113.77", "203.0.113.0/24", "2001:db8:7::/48")


async def counts(inspector: Redis) -> tuple[int, int]:
    """How often EVALSHA was called, and how often the server read from any connection, this command included."""
    info: dict[str, Any] = await inspector.info("all")
    return info.get("cmdstat_evalsha", {"calls": 0})["calls"], info["total_reads_processed"]


async def take(limiter: RedisLimiter, subject: str = "ada", *, limit: Limit = LIMIT, group: str = "ada") -> TakeResult:
    return await limiter.take([Take("key", subject, limit)], group=group)


async def take_of_everything(limiter: RedisLimiter) -> None:
    """One call of each kind, with subjects of every kind."""
    takes = [Take("limit", canary, LIMIT) for canary in CANARIES]
    assert (await limiter.take(takes, group=CANARIES[0], slot=SLOT)).allowed
    await limiter.take([*takes, Take("login", f"{CANARIES[3]} {CANARIES[2]}", LIMIT)], group="sign-in")
    await limiter.give_back(takes[:2], group=CANARIES[0])


async def keys(inspector: Redis) -> set[str]:
    return {key async for key in inspector.scan_iter()}


def remaining(results: Sequence[TakeResult]) -> list[int]:
    return [each.decisions[0].remaining for each in results]


async def test_calls_of_the_same_moment_share_a_round_trip_with_one_script_for_each_group(
    inspector: Redis, new_limiter: NewRedisLimiter
) -> None:
    limiter = new_limiter()
    await take(limiter)
    scripts, reads = await counts(inspector)
    await asyncio.gather(
        *(take(limiter, f"caller-{number}", group=f"group-{number % 3}") for number in range(30)),
        limiter.give_back([Take("key", "caller-7", LIMIT)], group="group-1"),
    )
    assert await counts(inspector) == (scripts + 3, reads + 2), "one round trip, and this command"


async def test_calls_during_a_round_trip_share_the_next_one(
    server: RedisServer, inspector: Redis, new_limiter: NewRedisLimiter
) -> None:
    limiter = new_limiter()
    await take(limiter)
    scripts, reads = await counts(inspector)
    server.freeze()
    calls = []
    for _ in range(6):
        calls.append(asyncio.create_task(take(limiter)))
        for _ in range(10):
            await asyncio.sleep(0)
    server.thaw()
    assert [result.allowed for result in await asyncio.gather(*calls)] == [True] * 4 + [False] * 2
    assert await counts(inspector) == (scripts + 2, reads + 3), "two round trips, and this command"


async def test_calls_are_decided_in_the_order_of_arrival(new_limiter: NewRedisLimiter) -> None:
    limiter = new_limiter()
    for limit in (Limit(5, 3600), Limit(7, 3600)):
        results = await asyncio.gather(*(take(limiter, str(limit), limit=limit) for _ in range(20)))
        assert [each.allowed for each in results] == [True] * limit.count + [False] * (20 - limit.count)


async def test_calls_of_different_kinds_keep_their_order(new_limiter: NewRedisLimiter) -> None:
    limiter, limit = new_limiter(), Limit(1, 3600)
    slots = [Slot("key", 1, 30, str(number)) for number in range(3)]

    async def acquire(slot: Slot) -> TakeResult:
        return await limiter.take([], group="ada", slot=slot)

    async def release(slot: Slot) -> None:
        limiter.release(slot, group="ada")

    give_back = limiter.give_back([Take("key", "ada", limit)], group="ada")
    units = await asyncio.gather(take(limiter, limit=limit), give_back, *(take(limiter, limit=limit) for _ in range(2)))
    assert [result.allowed for result in units if result] == [True, True, False]
    acquired = await asyncio.gather(acquire(slots[0]), acquire(slots[1]), release(slots[0]), acquire(slots[2]))
    assert [result.no_free_slot for result in acquired if result] == [False, True, False]


async def test_more_calls_than_a_batch_holds_are_decided_by_several_scripts_in_order(
    inspector: Redis, new_limiter: NewRedisLimiter
) -> None:
    limiter, limit = new_limiter(), Limit(BATCH_MAX + 7, 3600)
    await take(limiter)
    scripts, _reads = await counts(inspector)
    results = await asyncio.gather(*(take(limiter, limit=limit, subject="bob") for _ in range(2 * BATCH_MAX + 1)))
    assert (await counts(inspector))[0] == scripts + 6, "each twice as large as the one before, up to the largest"
    assert remaining(results) == [*range(limit.count - 1, -1, -1), *[0] * (2 * BATCH_MAX + 1 - limit.count)]
    assert [each.allowed for each in results] == [True] * limit.count + [False] * (2 * BATCH_MAX + 1 - limit.count)


async def test_a_group_with_one_call_does_not_wait_for_a_group_with_many(new_limiter: NewRedisLimiter) -> None:
    limiter, decided = new_limiter(), []

    async def call(group: str) -> None:
        await take(limiter, group=group)
        decided.append(group)

    await asyncio.gather(*[call("many") for _ in range(BATCH_MAX)], call("one"))
    assert decided.index("one") < BATCH_MAX // 2


async def test_nothing_sent_to_or_stored_in_redis_identifies_a_subject(
    inspector: Redis, new_limiter: NewRedisLimiter
) -> None:
    limiter = new_limiter()
    async with inspector.monitor() as monitor:
        await take_of_everything(limiter)
        limiter.release(SLOT, group=CANARIES[0])
        await take(limiter, CANARIES[1], group=CANARIES[0])
        await inspector.echo("end of the test")
        sent = []
        while "end of the test" not in (command := (await monitor.next_command())["command"]):
            sent.append(command)
    seen = "\n".join([*sent, *await keys(inspector)])
    assert seen.count("EVAL") >= 4
    assert [canary for canary in (*CANARIES, "canary", "example", "203.0") if canary in seen] == []


async def test_names_in_redis_depend_on_the_secret(inspector: Redis, new_limiter: NewRedisLimiter) -> None:
    await take_of_everything(new_limiter(secret=b"one"))
    of_one = await keys(inspector)
    await take_of_everything(new_limiter(secret=b"two"))
    assert of_one
    assert len(await keys(inspector)) == 2 * len(of_one)
    assert (await take(new_limiter(secret=b"two"), group="three")).decisions[0].remaining == 4


async def test_processes_with_one_secret_share_their_limits(new_limiter: NewRedisLimiter) -> None:
    processes = [new_limiter() for _ in range(4)]
    results = await asyncio.gather(*(take(process) for process in processes for _ in range(5)))
    assert sum(each.allowed for each in results) == LIMIT.count
    await processes[0].give_back([Take("key", "ada", LIMIT)], group="ada")
    assert [(await take(process)).allowed for process in processes] == [True, False, False, False]


async def test_processes_with_one_secret_share_their_slots(new_limiter: NewRedisLimiter) -> None:
    first, second = new_limiter(), new_limiter()
    slots = [Slot("key", 1, 30, str(number)) for number in range(3)]
    assert (await first.take([], group="ada", slot=slots[0])).allowed
    assert (await second.take([], group="ada", slot=slots[1])).no_free_slot
    second.release(slots[0], group="ada")
    assert (await second.take([], group="ada", slot=slots[2])).allowed


async def test_the_clock_is_that_of_redis(inspector: Redis, new_limiter: NewRedisLimiter) -> None:
    before = await inspector.time()
    await take(new_limiter(), limit=Limit(1, 60))
    after = await inspector.time()
    [key] = await keys(inspector)
    taken_at = int(await inspector.get(key) or 0) - 60 * MICROSECONDS
    microseconds = [seconds * MICROSECONDS + rest for seconds, rest in (before, after)]
    assert microseconds[0] <= taken_at <= microseconds[1]


async def test_each_group_has_a_hash_tag_of_its_own(inspector: Redis, new_limiter: NewRedisLimiter) -> None:
    limiter = new_limiter()
    await take_of_everything(limiter)
    hash_slots: dict[str, set[int]] = {}
    for key in await keys(inspector):
        hash_slots.setdefault(key[key.index("{") : key.index("}")], set()).add(key_slot(key.encode()))
    assert [len(each) for each in hash_slots.values()] == [1, 1]
    assert len(set.union(*hash_slots.values())) == 2


@pytest.mark.parametrize("microseconds", [1_799_999_999_999_999, 1_800_000_000_000_001, 4_102_444_800_000_007])
async def test_times_are_stored_as_digits_to_the_microsecond(
    server: RedisServer, inspector: Redis, microseconds: int
) -> None:
    clock, limit = Clock(microseconds), Limit(2, 60)
    limiter = RedisLimiter(open_redis(server.url), secret=b"x", timeout_seconds=PATIENCE_SECONDS, clock=clock)
    await limiter.take([Take("key", "ada", limit)], group="ada", slot=SLOT)
    stored = {key: await inspector.get(key) for key in await keys(inspector) if "running" not in key}
    assert list(stored.values()) == [str(microseconds + 30 * MICROSECONDS)]
    [held] = await keys(inspector) - stored.keys()
    assert await inspector.zrange(held, 0, -1, withscores=True) == [(SLOT.id, microseconds + 30 * MICROSECONDS)]
    clock.microseconds += 1
    assert (await take(limiter, limit=limit)).decisions[0].reset_seconds == 59.999999
    await limiter.close()


async def test_every_name_in_redis_expires(inspector: Redis, new_limiter: NewRedisLimiter) -> None:
    limiter = new_limiter()
    for _ in range(3):
        await take_of_everything(limiter)
    await limiter.give_back([Take("limit", "nobody", LIMIT)], group="ada")
    expiries = {key: await inspector.pttl(key) for key in await keys(inspector)}
    assert expiries
    latest = LIMIT.burst_tolerance / 1000 + 60_000
    assert all(0 < milliseconds <= latest for milliseconds in expiries.values()), expiries


async def test_a_bucket_does_not_expire_before_it_is_full(inspector: Redis, new_limiter: NewRedisLimiter) -> None:
    await take(new_limiter(), limit=Limit(10, 3600))
    [key] = await keys(inspector)
    assert await inspector.pttl(key) > 360_000


async def test_a_slot_taken_for_a_shorter_time_does_not_shorten_the_expiry_of_the_others(
    inspector: Redis, new_limiter: NewRedisLimiter
) -> None:
    limiter = new_limiter()
    for seconds in (600, 1):
        await limiter.take([], group="ada", slot=Slot("key", 5, seconds, f"for {seconds}"))
    [key] = await keys(inspector)
    assert await inspector.pttl(key) > 590_000


async def test_after_redis_lost_the_script_no_call_is_refused_or_counted_twice(
    inspector: Redis, new_limiter: NewRedisLimiter
) -> None:
    limiter = new_limiter()
    for left in (4, 3, 2, 1, 0):
        await inspector.script_flush()
        results = await asyncio.gather(*(take(limiter, group=group) for group in ("one", "two", "three")))
        assert all(each.allowed for each in results)
        assert remaining(results) == [left] * 3
