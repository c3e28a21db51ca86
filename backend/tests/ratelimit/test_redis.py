"""What the limiter in Redis promises beyond the contract: how it asks, and what it leaves there."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from app.ratelimit import MICROSECONDS, Charge, Lease, Limit, Taken
from app.ratelimit.batches import BATCH_MAX
from app.ratelimit.redis import RedisLimiter, open_redis
from redis.asyncio import Redis
from redis.crc import key_slot
from tests.ratelimit.sources import PATIENCE_SECONDS, Clock, NewLimiter
from tests.redis_server import RedisServer

LIMIT = Limit(5, 3600)
LEASE = Lease("key_canary", 3, 30, "b1f2-7")
CANARIES = ("usr_canary", "key_canary", "ada@example.com", "203.0.113.77", "203.0.113.0/24", "2001:db8:7::/48")


async def counts(looker: Redis) -> tuple[int, int]:
    """How many scripts were asked for by name, and how often anything was read from anybody, this question included."""
    info: dict[str, Any] = await looker.info("all")
    return info.get("cmdstat_evalsha", {"calls": 0})["calls"], info["total_reads_processed"]


async def take(limiter: RedisLimiter, who: str = "ada", *, limit: Limit = LIMIT, group: str = "ada") -> Taken:
    return await limiter.take([Charge("key", who, limit)], group=group)


async def take_of_everything(limiter: RedisLimiter) -> None:
    """One call of each kind, with identifiers of every kind."""
    charges = [Charge("limit", canary, LIMIT) for canary in CANARIES]
    assert (await limiter.take(charges, group=CANARIES[0], lease=LEASE)).allowed
    await limiter.take([*charges, Charge("login", f"{CANARIES[3]} {CANARIES[2]}", LIMIT)], group="sign-in")
    await limiter.give_back(charges[:2], group=CANARIES[0])


async def keys(looker: Redis) -> set[str]:
    return {key async for key in looker.scan_iter()}


def remaining(taken: Sequence[Taken]) -> list[int]:
    return [each.decisions[0].remaining for each in taken]


async def test_what_is_asked_at_one_moment_shares_a_round_trip_and_a_script_for_each_group(
    looker: Redis, new_limiter: NewLimiter
) -> None:
    limiter = new_limiter()
    await take(limiter)
    scripts, reads = await counts(looker)
    await asyncio.gather(
        *(take(limiter, f"caller-{number}", group=f"group-{number % 3}") for number in range(30)),
        limiter.give_back([Charge("key", "caller-7", LIMIT)], group="group-1"),
    )
    assert await counts(looker) == (scripts + 3, reads + 2), "one round trip, and the question"


async def test_what_is_asked_while_a_round_trip_is_on_its_way_shares_the_next(
    server: RedisServer, looker: Redis, new_limiter: NewLimiter
) -> None:
    limiter = new_limiter()
    await take(limiter)
    scripts, reads = await counts(looker)
    server.freeze()
    asked = []
    for _ in range(6):
        asked.append(asyncio.create_task(take(limiter)))
        for _ in range(10):
            await asyncio.sleep(0)
    server.thaw()
    assert [taken.allowed for taken in await asyncio.gather(*asked)] == [True] * 4 + [False] * 2
    assert await counts(looker) == (scripts + 2, reads + 3), "two round trips, and the question"


async def test_calls_are_decided_in_the_order_of_asking(new_limiter: NewLimiter) -> None:
    limiter = new_limiter()
    for limit in (Limit(5, 3600), Limit(7, 3600)):
        taken = await asyncio.gather(*(take(limiter, str(limit), limit=limit) for _ in range(20)))
        assert [each.allowed for each in taken] == [True] * limit.count + [False] * (20 - limit.count)


async def test_calls_of_every_kind_keep_their_order(new_limiter: NewLimiter) -> None:
    limiter, limit = new_limiter(), Limit(1, 3600)
    leases = [Lease("key", 1, 30, str(number)) for number in range(3)]

    async def start(lease: Lease) -> Taken:
        return await limiter.take([], group="ada", lease=lease)

    async def end(lease: Lease) -> None:
        limiter.end(lease, group="ada")

    give_back = limiter.give_back([Charge("key", "ada", limit)], group="ada")
    units = await asyncio.gather(take(limiter, limit=limit), give_back, *(take(limiter, limit=limit) for _ in range(2)))
    assert [taken.allowed for taken in units if taken] == [True, True, False]
    started = await asyncio.gather(start(leases[0]), start(leases[1]), end(leases[0]), start(leases[2]))
    assert [taken.crowded for taken in started if taken] == [False, True, False]


async def test_more_calls_than_one_script_decides_are_several_scripts_in_order(
    looker: Redis, new_limiter: NewLimiter
) -> None:
    limiter, limit = new_limiter(), Limit(BATCH_MAX + 7, 3600)
    await take(limiter)
    scripts, _reads = await counts(looker)
    taken = await asyncio.gather(*(take(limiter, limit=limit, who="bob") for _ in range(2 * BATCH_MAX + 1)))
    assert (await counts(looker))[0] == scripts + 6, "each twice as large as the one before, and none too large"
    assert remaining(taken) == [*range(limit.count - 1, -1, -1), *[0] * (2 * BATCH_MAX + 1 - limit.count)]
    assert [each.allowed for each in taken] == [True] * limit.count + [False] * (2 * BATCH_MAX + 1 - limit.count)


async def test_an_account_with_one_call_does_not_wait_for_one_with_many(new_limiter: NewLimiter) -> None:
    limiter, told = new_limiter(), []

    async def call(group: str) -> None:
        await take(limiter, group=group)
        told.append(group)

    await asyncio.gather(*[call("many") for _ in range(BATCH_MAX)], call("one"))
    assert told.index("one") < BATCH_MAX // 2


async def test_nothing_that_is_sent_or_kept_identifies_anybody(looker: Redis, new_limiter: NewLimiter) -> None:
    limiter = new_limiter()
    async with looker.monitor() as monitor:
        await take_of_everything(limiter)
        limiter.end(LEASE, group=CANARIES[0])
        await take(limiter, CANARIES[1], group=CANARIES[0])
        await looker.echo("the end")
        sent = []
        while "the end" not in (command := (await monitor.next_command())["command"]):
            sent.append(command)
    seen = "\n".join([*sent, *await keys(looker)])
    assert seen.count("EVAL") >= 4
    assert [canary for canary in (*CANARIES, "canary", "example", "203.0") if canary in seen] == []


async def test_names_are_keyed_with_the_secret(looker: Redis, new_limiter: NewLimiter) -> None:
    await take_of_everything(new_limiter(secret=b"one"))
    of_one = await keys(looker)
    await take_of_everything(new_limiter(secret=b"two"))
    assert of_one
    assert len(await keys(looker)) == 2 * len(of_one)
    assert (await take(new_limiter(secret=b"two"), group="three")).decisions[0].remaining == 4


async def test_processes_with_one_secret_share_their_limits(new_limiter: NewLimiter) -> None:
    processes = [new_limiter() for _ in range(4)]
    taken = await asyncio.gather(*(take(process) for process in processes for _ in range(5)))
    assert sum(each.allowed for each in taken) == LIMIT.count
    await processes[0].give_back([Charge("key", "ada", LIMIT)], group="ada")
    assert [(await take(process)).allowed for process in processes] == [True, False, False, False]


async def test_processes_with_one_secret_share_their_places(new_limiter: NewLimiter) -> None:
    first, second = new_limiter(), new_limiter()
    leases = [Lease("key", 1, 30, str(number)) for number in range(3)]
    assert (await first.take([], group="ada", lease=leases[0])).allowed
    assert (await second.take([], group="ada", lease=leases[1])).crowded
    second.end(leases[0], group="ada")
    assert (await second.take([], group="ada", lease=leases[2])).allowed


async def test_the_time_is_that_of_redis(looker: Redis, new_limiter: NewLimiter) -> None:
    before = await looker.time()
    await take(new_limiter(), limit=Limit(1, 60))
    after = await looker.time()
    [key] = await keys(looker)
    taken_at = int(await looker.get(key) or 0) - 60 * MICROSECONDS
    microseconds = [seconds * MICROSECONDS + rest for seconds, rest in (before, after)]
    assert microseconds[0] <= taken_at <= microseconds[1]


async def test_all_of_a_group_has_one_cluster_tag_and_groups_have_different_ones(
    looker: Redis, new_limiter: NewLimiter
) -> None:
    limiter = new_limiter()
    await take_of_everything(limiter)
    groups: dict[str, set[int]] = {}
    for key in await keys(looker):
        groups.setdefault(key[key.index("{") : key.index("}")], set()).add(key_slot(key.encode()))
    assert sorted(len(slots) for slots in groups.values()) == [1, 1]
    assert len(set.union(*groups.values())) == 2


@pytest.mark.parametrize("microseconds", [1_799_999_999_999_999, 1_800_000_000_000_001, 4_102_444_800_000_007])
async def test_times_are_kept_to_the_microsecond_and_as_digits(
    server: RedisServer, looker: Redis, microseconds: int
) -> None:
    clock, limit = Clock(microseconds), Limit(2, 60)
    limiter = RedisLimiter(open_redis(server.url), secret=b"x", timeout_seconds=PATIENCE_SECONDS, clock=clock)
    await limiter.take([Charge("key", "ada", limit)], group="ada", lease=LEASE)
    stored = {key: await looker.get(key) for key in await keys(looker) if "running" not in key}
    assert list(stored.values()) == [str(microseconds + 30 * MICROSECONDS)]
    [leases] = await keys(looker) - stored.keys()
    assert await looker.zrange(leases, 0, -1, withscores=True) == [(LEASE.id, microseconds + 30 * MICROSECONDS)]
    clock.microseconds += 1
    assert (await take(limiter, limit=limit)).decisions[0].reset_seconds == 59.999999
    await limiter.close()


async def test_nothing_is_kept_for_ever(looker: Redis, new_limiter: NewLimiter) -> None:
    limiter = new_limiter()
    for _ in range(3):
        await take_of_everything(limiter)
    await limiter.give_back([Charge("limit", "nobody", LIMIT)], group="ada")
    left = {key: await looker.pttl(key) for key in await keys(looker)}
    assert left
    assert all(0 < milliseconds <= (LIMIT.depth / 1000) + 60_000 for milliseconds in left.values()), left


async def test_a_bucket_is_kept_until_it_is_full(looker: Redis, new_limiter: NewLimiter) -> None:
    await take(new_limiter(), limit=Limit(10, 3600))
    [key] = await keys(looker)
    assert await looker.pttl(key) > 360_000


async def test_a_lease_is_kept_as_long_as_it_lasts_whatever_shorter_ones_come(
    looker: Redis, new_limiter: NewLimiter
) -> None:
    limiter = new_limiter()
    for seconds in (600, 1):
        await limiter.take([], group="ada", lease=Lease("key", 5, seconds, f"for {seconds}"))
    [key] = await keys(looker)
    assert await looker.pttl(key) > 590_000


async def test_a_redis_that_forgot_the_script_refuses_nobody_and_counts_nobody_twice(
    looker: Redis, new_limiter: NewLimiter
) -> None:
    limiter = new_limiter()
    for left in (4, 3, 2, 1, 0):
        await looker.script_flush()
        taken = await asyncio.gather(*(take(limiter, group=group) for group in ("one", "two", "three")))
        assert all(each.allowed for each in taken)
        assert remaining(taken) == [left] * 3
