"""Memory and Redis decide alike, for any calls at any times, one after the other or many at once."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from app.ratelimit import MICROSECONDS, Limit, Limiter, Slot, Take, TakeResult
from hypothesis import given
from hypothesis import strategies as st
from tests.ratelimit.sync_limiter import REPRODUCIBLY, NewSyncLimiter

DAY = 86_400 * MICROSECONDS
TODAY = 1_800_000_000 * MICROSECONDS

COUNTS = st.one_of(st.integers(min_value=1, max_value=5), st.integers(min_value=1, max_value=9_999_999))
LIMITS = st.builds(Limit, COUNTS, st.sampled_from((1, 60, 3600, 86_400)))
UNITS = st.integers(min_value=1, max_value=10)
TAKES = st.builds(Take, st.sampled_from(("key", "account")), st.sampled_from(("ada", "bob")), LIMITS, UNITS)
SEVERAL = st.lists(TAKES, max_size=3, unique_by=lambda take: (take.name, take.subject))
GROUPS = st.sampled_from(("one", "two"))
SLOTS = st.builds(
    Slot,
    st.sampled_from(("ada", "bob")),
    st.integers(min_value=1, max_value=3),
    st.integers(min_value=1, max_value=100),
    st.sampled_from("abcdef"),
    st.integers(min_value=1, max_value=3),
)
MOVES = st.one_of(
    st.just(0),
    *(st.integers(min_value=-reach, max_value=reach) for reach in (2, MICROSECONDS, 100 * MICROSECONDS, DAY)),
)


@dataclass(frozen=True)
class TakeCall:
    """A call to take."""

    takes: Sequence[Take]
    group: str
    slot: Slot | None

    async def made_on(self, limiter: Limiter) -> TakeResult:
        return await limiter.take(self.takes, group=self.group, slot=self.slot)


@dataclass(frozen=True)
class GiveBackCall:
    """A call to give back units, which may never have been taken."""

    takes: Sequence[Take]
    group: str

    async def made_on(self, limiter: Limiter) -> None:
        await limiter.give_back(self.takes, group=self.group)


@dataclass(frozen=True)
class ReleaseCall:
    """A call to release a slot, which may not be held."""

    slot: Slot
    group: str

    async def made_on(self, limiter: Limiter) -> None:
        limiter.release(self.slot, group=self.group)


Call = TakeCall | GiveBackCall | ReleaseCall
MakeCalls = Callable[[Sequence[Call], Limiter], Coroutine[Any, Any, Sequence[TakeResult | None]]]

TAKE_CALLS = st.builds(TakeCall, SEVERAL, GROUPS, st.none() | SLOTS)
CALLS = st.one_of(
    TAKE_CALLS, TAKE_CALLS, st.builds(GiveBackCall, SEVERAL, GROUPS), st.builds(ReleaseCall, SLOTS, GROUPS)
)
MOMENTS = st.lists(st.tuples(MOVES, st.lists(CALLS, max_size=12)), min_size=1, max_size=12)


async def at_once(calls: Sequence[Call], limiter: Limiter) -> Sequence[TakeResult | None]:
    """The results of calls that are made in this order, without waiting for each other."""
    return await asyncio.gather(*(call.made_on(limiter) for call in calls))


async def one_at_a_time(calls: Sequence[Call], limiter: Limiter) -> Sequence[TakeResult | None]:
    return [await call.made_on(limiter) for call in calls]


@REPRODUCIBLY
@given(begin=st.sampled_from((DAY, TODAY)), moments=MOMENTS, make_calls=st.sampled_from((at_once, one_at_a_time)))
def test_memory_and_redis_decide_alike(
    new_in_memory: NewSyncLimiter,
    new_in_redis: NewSyncLimiter,
    begin: int,
    moments: Sequence[tuple[int, Sequence[Call]]],
    make_calls: MakeCalls,
) -> None:
    limiters = new_in_memory(), new_in_redis()
    for limiter in limiters:
        limiter.clock.microseconds = begin
    for move, calls in moments:
        results = []
        for limiter in limiters:
            limiter.clock.microseconds = max(limiter.clock.microseconds + move, 1)
            results.append(limiter.runner.run(make_calls(calls, limiter.limiter)))
        in_memory, in_redis = results
        assert in_memory == in_redis
