"""Memory and Redis answer alike: whatever is asked, at whatever time, one at a time or many at once."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from app.ratelimit import MICROSECONDS, Charge, Lease, Limit, Limiter, Taken
from hypothesis import given
from hypothesis import strategies as st
from tests.ratelimit.sources import REPRODUCIBLY, NewSource

DAY = 86_400 * MICROSECONDS
TODAY = 1_800_000_000 * MICROSECONDS

COUNTS = st.one_of(st.integers(min_value=1, max_value=5), st.integers(min_value=1, max_value=9_999_999))
LIMITS = st.builds(Limit, COUNTS, st.sampled_from((1, 60, 3600, 86_400)))
UNITS = st.integers(min_value=1, max_value=10)
CHARGES = st.builds(Charge, st.sampled_from(("key", "account")), st.sampled_from(("ada", "bob")), LIMITS, UNITS)
SEVERAL = st.lists(CHARGES, max_size=3, unique_by=lambda charge: (charge.name, charge.who))
GROUPS = st.sampled_from(("one", "two"))
LEASES = st.builds(
    Lease,
    st.sampled_from(("ada", "bob")),
    st.integers(min_value=1, max_value=3),
    st.integers(min_value=1, max_value=100),
    st.sampled_from("abcdef"),
)
MOVES = st.one_of(
    st.just(0),
    *(st.integers(min_value=-reach, max_value=reach) for reach in (2, MICROSECONDS, 100 * MICROSECONDS, DAY)),
)


@dataclass(frozen=True)
class Take:
    """An attempt to take."""

    charges: Sequence[Charge]
    group: str
    lease: Lease | None

    async def of(self, limiter: Limiter) -> Taken:
        return await limiter.take(self.charges, group=self.group, lease=self.lease)


@dataclass(frozen=True)
class GiveBack:
    """Units that should not have been taken, or never were."""

    charges: Sequence[Charge]
    group: str

    async def of(self, limiter: Limiter) -> None:
        await limiter.give_back(self.charges, group=self.group)


@dataclass(frozen=True)
class End:
    """The end of a lease that runs or does not."""

    lease: Lease
    group: str

    async def of(self, limiter: Limiter) -> None:
        limiter.end(self.lease, group=self.group)


Step = Take | GiveBack | End
Ask = Callable[[Sequence[Step], Limiter], Coroutine[Any, Any, Sequence[Taken | None]]]

TAKES = st.builds(Take, SEVERAL, GROUPS, st.none() | LEASES)
STEPS = st.one_of(TAKES, TAKES, st.builds(GiveBack, SEVERAL, GROUPS), st.builds(End, LEASES, GROUPS))
MOMENTS = st.lists(st.tuples(MOVES, st.lists(STEPS, max_size=12)), min_size=1, max_size=12)


async def at_once(steps: Sequence[Step], limiter: Limiter) -> Sequence[Taken | None]:
    """What is answered to steps that are asked for in this order, none waiting for another."""
    return await asyncio.gather(*(step.of(limiter) for step in steps))


async def one_at_a_time(steps: Sequence[Step], limiter: Limiter) -> Sequence[Taken | None]:
    return [await step.of(limiter) for step in steps]


@REPRODUCIBLY
@given(begin=st.sampled_from((DAY, TODAY)), moments=MOMENTS, ask=st.sampled_from((at_once, one_at_a_time)))
def test_memory_and_redis_answer_alike(
    new_memory: NewSource,
    new_shared: NewSource,
    begin: int,
    moments: Sequence[tuple[int, Sequence[Step]]],
    ask: Ask,
) -> None:
    sources = new_memory(), new_shared()
    for source in sources:
        source.clock.microseconds = begin
    for move, steps in moments:
        answers = []
        for source in sources:
            source.clock.microseconds = max(source.clock.microseconds + move, 1)
            answers.append(source.runner.run(ask(steps, source.limiter)))
        in_memory, in_redis = answers
        assert in_memory == in_redis
