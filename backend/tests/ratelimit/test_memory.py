"""What the limiter in memory guarantees beyond the contract: bounded memory, and the share of one process."""

import asyncio
import tracemalloc
from pathlib import Path

import pytest
from app import ratelimit
from app.ratelimit import Limit, Slot, Take
from app.ratelimit.memory import MemoryLimiter
from tests.ratelimit.sync_limiter import Clock, SyncLimiter

LIMIT = Limit(1, 60)
SOURCES = str(Path(ratelimit.__file__).parent / "*")


def new_limiter(runner: asyncio.Runner, **options: int) -> SyncLimiter:
    clock = Clock()
    return SyncLimiter(MemoryLimiter(clock=clock, **options), clock, runner)


def test_beyond_the_bound_the_bucket_used_longest_ago_is_forgotten(runner: asyncio.Runner) -> None:
    limiter = new_limiter(runner, buckets_max=3)
    for subject in ("ada", "bob", "cyd", "dan"):
        assert limiter.take_one(LIMIT, subject=subject).allowed
    assert not limiter.take_one(LIMIT, subject="bob").allowed
    assert limiter.take_one(LIMIT, subject="ada").allowed, "forgotten for dan's"


def test_a_refused_take_counts_as_use_of_its_bucket(runner: asyncio.Runner) -> None:
    limiter = new_limiter(runner, buckets_max=3)
    for subject in ("ada", "bob", "cyd"):
        limiter.take_one(LIMIT, subject=subject)
    assert not limiter.take_one(LIMIT, subject="ada").allowed
    limiter.take_one(LIMIT, subject="dan")
    assert not limiter.take_one(LIMIT, subject="ada").allowed
    assert limiter.take_one(LIMIT, subject="bob").allowed, "forgotten for dan's"


def test_a_flood_of_subjects_takes_no_more_memory_than_the_bound(runner: asyncio.Runner) -> None:
    limiter = new_limiter(runner, buckets_max=100)

    async def flood(subjects: range) -> None:
        for subject in subjects:
            await limiter.limiter.take([Take("ip", str(subject), LIMIT)], group="sign-in")

    runner.run(flood(range(1000)))
    tracemalloc.start()
    runner.run(flood(range(1000, 6000)))
    # What other threads of the process have allocated meanwhile is none of the limiter's.
    kept = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(inclusive=True, filename_pattern=SOURCES)])
    tracemalloc.stop()
    grown = sum(each.size for each in kept.statistics("filename"))
    assert grown < 200_000, "five thousand buckets would take a megabyte"


@pytest.mark.parametrize(("count", "processes", "share"), [(10, 1, 10), (10, 2, 5), (10, 4, 3), (1, 8, 1), (9, 9, 1)])
def test_a_process_allows_its_share_rounded_up(runner: asyncio.Runner, count: int, processes: int, share: int) -> None:
    limiter = new_limiter(runner, processes=processes)
    assert sum(limiter.take_one(Limit(count, 60)).allowed for _ in range(count + 1)) == share


def test_a_share_is_refilled_in_the_window_of_the_whole_limit(runner: asyncio.Runner) -> None:
    limiter = new_limiter(runner, processes=2)
    limit = Limit(10, 60)
    while (decision := limiter.take_one(limit)).allowed:
        pass
    assert (decision.retry_after_seconds, decision.reset_seconds) == (12, 60)


def test_decisions_name_the_whole_limit(runner: asyncio.Runner) -> None:
    limiter = new_limiter(runner, processes=4)
    decisions = [limiter.take_one(Limit(10, 60)) for _ in range(4)]
    assert {decision.limit for decision in decisions} == {Limit(10, 60)}


def test_exactly_the_units_given_back_to_a_share_can_be_taken_again(runner: asyncio.Runner) -> None:
    limiter = new_limiter(runner, processes=4)
    limit = Limit(10, 60)
    for _ in range(3):
        limiter.take_one(limit)
    limiter.give_back(Take("key", "ada", limit))
    assert [limiter.take_one(limit).allowed for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("slots", "processes", "share"), [(10, 4, 3), (1, 8, 1), (6, 3, 2)])
def test_a_process_allows_its_share_of_the_slots_rounded_up(
    runner: asyncio.Runner, slots: int, processes: int, share: int
) -> None:
    limiter = new_limiter(runner, processes=processes)
    acquired = [limiter.acquires(Slot("key", slots, 30, str(number))) for number in range(slots + 1)]
    assert sum(acquired) == share
