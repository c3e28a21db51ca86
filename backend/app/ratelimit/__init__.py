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
    def policy(self) -> str:
        """As `RateLimit-Policy` has it, without the name."""
        return f"q={self.count};w={self.window_seconds}"

    @cached_property
    def depth(self) -> int:
        """Microseconds in which an empty bucket is full again."""
        return self.count * self.interval


class Charge(NamedTuple):
    """Units to be taken from the bucket `name` of the caller `who`."""

    name: str
    who: str
    limit: Limit
    units: int = 1

    @property
    def cost(self) -> int:
        """Microseconds by which taking the units puts off the time at which the bucket is full."""
        return self.units * self.limit.interval


class Lease(NamedTuple):
    """One of the `places` for things that `who` may have running at a time, known by its `id`.

    It lasts until it is ended, and no longer than `seconds`: whoever dies with a lease leaks none.
    """

    who: str
    places: int
    seconds: int
    id: str


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


class Taken(NamedTuple):
    """What became of an attempt to take: everything that was asked for where `allowed`, else nothing at all."""

    allowed: bool
    decisions: Sequence[Decision]
    """One for each charge, in their order. A charge that had room is `allowed` even where another one had none."""
    crowded: bool
    """As many leases as there may be are running."""


class Limiter(Protocol):
    """Where buckets and leases are kept.

    A bucket or a lease belongs to a `group`, in which it is unique; what is taken at once lives in one group.
    """

    async def take(self, charges: Sequence[Charge], *, group: str, lease: Lease | None = None) -> Taken:
        """Takes the units of each charge, and the lease if there is one; or, if any of them is refused, none of it."""
        ...

    async def give_back(self, charges: Sequence[Charge], *, group: str) -> None:
        """Returns units that were taken and, as it turned out, should not have been."""
        ...

    def end(self, lease: Lease, *, group: str) -> None:
        """Ends a lease. One that was never taken, or has ended, changes nothing."""
        ...


def level(full_at: int, limit: Limit, *, now: int) -> int:
    """When a bucket that was left to be full at `full_at` is full: not before now, and not after an empty one would be.

    The second bound holds where the limit has become wider meanwhile, or the clock has gone back: neither makes anybody
    wait longer than for an empty bucket.
    """
    if full_at <= now:
        return now
    empty = now + limit.depth
    return min(full_at, empty)


def decide(charges: Sequence[Charge], *, levels: Sequence[int], now: int, crowded: bool = False) -> Taken:
    """GCRA over buckets at these levels: taken are all units or none. Microseconds.

    Taking a unit puts the time at which a bucket is full off by one interval; a bucket of N can be at most N intervals
    from full. More units than the limit counts are never there.
    """
    allowed, costs = not crowded, []
    for charge, at in zip(charges, levels, strict=True):
        cost = charge.cost
        costs.append((charge, at - now, cost))
        if at + cost - now > charge.limit.depth:
            allowed = False
    decisions = [_decision(charge, away=away, cost=cost, taken=allowed) for charge, away, cost in costs]
    return Taken(allowed, decisions, crowded)


def _decision(charge: Charge, *, away: int, cost: int, taken: bool) -> Decision:
    limit = charge.limit
    missing = away + cost - limit.depth
    if taken:
        away += cost
    remaining, wait = (limit.depth - away) // limit.interval, missing / MICROSECONDS if missing > 0 else 0.0
    return Decision(charge.name, limit, missing <= 0, remaining, away / MICROSECONDS, wait)
