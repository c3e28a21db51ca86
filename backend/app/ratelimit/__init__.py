"""Rate limits: what a limit is, the arithmetic that decides, and the port behind which the state is kept.

The arithmetic is GCRA, a token bucket that needs one number per bucket: the time at which it will be full again. All
times are whole microseconds, so that every source, in this process or in a script elsewhere, decides alike.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, Self

MICROSECONDS = 1_000_000
_WINDOW_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_LIMIT = re.compile(r"([1-9][0-9]{0,6})/(second|minute|hour|day)", re.ASCII)


@dataclass(frozen=True)
class Limit:
    """`count` at once, refilled evenly over `window_seconds`."""

    count: int
    window_seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`600/minute`. Raises ValueError for anything else."""
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError("must look like 600/minute (per second, minute, hour or day)")
        return cls(int(match[1]), _WINDOW_SECONDS[match[2]])

    @cached_property
    def interval(self) -> int:
        """Microseconds in which one unit comes back, rounded up: never more than the limit says."""
        return -(-self.window_seconds * MICROSECONDS // self.count)

    @cached_property
    def depth(self) -> int:
        """Microseconds in which an empty bucket is full again."""
        return self.count * self.interval


class Charge(NamedTuple):
    """One unit to be taken from the bucket `name` of the caller `who`."""

    name: str
    who: str
    limit: Limit


class Decision(NamedTuple):
    """What a limiter answers about one charge.

    `remaining` units could be taken now; in `reset_seconds` the bucket is full again; after `retry_after_seconds` the
    same charge is allowed, if nobody else takes from the bucket (0 where it was allowed).
    """

    name: str
    limit: Limit
    allowed: bool
    remaining: int
    reset_seconds: float
    retry_after_seconds: float


class Limiter(Protocol):
    """Where buckets are kept."""

    async def take(self, charges: Sequence[Charge]) -> Sequence[Decision]:
        """Takes one unit for each charge, or none at all where one of them is refused. In the order of the charges."""
        ...

    async def give_back(self, charges: Sequence[Charge]) -> None:
        """Returns units that were taken and, as it turned out, should not have been."""
        ...


def decide(charge: Charge, *, full_at: int | None, now: int) -> tuple[int, Decision]:
    """GCRA: the bucket's next `full_at` if the unit is taken, and the decision. Microseconds.

    A bucket nobody has drawn from is full now. Taking a unit puts the time at which it is full again off by one
    interval; a bucket of N can be at most N intervals from full.
    """
    limit = charge.limit
    before = max(full_at or 0, now)
    after = before + limit.interval
    missing = after - now - limit.depth
    allowed = missing <= 0
    level = after if allowed else before
    return after, Decision(
        name=charge.name,
        limit=limit,
        allowed=allowed,
        remaining=max(0, (limit.depth - (level - now)) // limit.interval),
        reset_seconds=(level - now) / MICROSECONDS,
        retry_after_seconds=0 if allowed else missing / MICROSECONDS,
    )
