"""What the memory of a process promises beyond the contract: it is bounded, and holds its share."""

import asyncio
import tracemalloc

import pytest
from app.ratelimit import Charge, Lease, Limit
from app.ratelimit.memory import MemoryLimiter
from tests.ratelimit.sources import Clock, Source

LIMIT = Limit(1, 60)


def memory(runner: asyncio.Runner, **options: int) -> Source:
    clock = Clock()
    return Source(MemoryLimiter(clock=clock, **options), clock, runner)


def test_memory_is_bounded_and_the_longest_unused_bucket_goes_first(runner: asyncio.Runner) -> None:
    source = memory(runner, buckets_max=3)
    for who in ("ada", "bob", "cyd", "dan"):
        assert source.take_one(LIMIT, who=who).allowed
    assert not source.take_one(LIMIT, who="bob").allowed
    assert source.take_one(LIMIT, who="ada").allowed, "forgotten when dan came"


def test_a_bucket_that_has_just_refused_is_not_the_longest_unused(runner: asyncio.Runner) -> None:
    source = memory(runner, buckets_max=3)
    for who in ("ada", "bob", "cyd"):
        source.take_one(LIMIT, who=who)
    assert not source.take_one(LIMIT, who="ada").allowed
    source.take_one(LIMIT, who="dan")
    assert not source.take_one(LIMIT, who="ada").allowed
    assert source.take_one(LIMIT, who="bob").allowed, "forgotten when dan came"


def test_a_flood_of_callers_takes_no_more_memory_than_as_many_as_are_kept(runner: asyncio.Runner) -> None:
    source = memory(runner, buckets_max=100)

    async def flood(callers: range) -> None:
        for caller in callers:
            await source.limiter.take([Charge("ip", str(caller), LIMIT)], group="sign-in")

    runner.run(flood(range(1000)))
    tracemalloc.start()
    runner.run(flood(range(1000, 6000)))
    grown, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 200_000, "five thousand buckets would take a megabyte"


@pytest.mark.parametrize(("count", "processes", "share"), [(10, 1, 10), (10, 2, 5), (10, 4, 3), (1, 8, 1), (9, 9, 1)])
def test_a_process_lets_its_share_through_rounded_up(
    runner: asyncio.Runner, count: int, processes: int, share: int
) -> None:
    source = memory(runner, processes=processes)
    assert sum(source.take_one(Limit(count, 60)).allowed for _ in range(count + 1)) == share


def test_a_share_comes_back_in_the_window_of_the_whole(runner: asyncio.Runner) -> None:
    source = memory(runner, processes=2)
    limit = Limit(10, 60)
    while (decision := source.take_one(limit)).allowed:
        pass
    assert (decision.retry_after_seconds, decision.reset_seconds) == (12, 60)


def test_what_is_told_of_a_limit_is_the_whole(runner: asyncio.Runner) -> None:
    source = memory(runner, processes=4)
    decisions = [source.take_one(Limit(10, 60)) for _ in range(4)]
    assert {decision.limit for decision in decisions} == {Limit(10, 60)}


def test_what_a_process_gave_back_can_be_taken_again_and_no_more(runner: asyncio.Runner) -> None:
    source = memory(runner, processes=4)
    limit = Limit(10, 60)
    for _ in range(3):
        source.take_one(limit)
    source.give_back(Charge("key", "ada", limit))
    assert [source.take_one(limit).allowed for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("places", "processes", "share"), [(10, 4, 3), (1, 8, 1), (6, 3, 2)])
def test_a_process_gives_its_share_of_the_places_rounded_up(
    runner: asyncio.Runner, places: int, processes: int, share: int
) -> None:
    source = memory(runner, processes=processes)
    started = [source.starts(Lease("key", places, 30, str(number))) for number in range(places + 1)]
    assert sum(started) == share
