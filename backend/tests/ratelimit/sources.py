"""A limiter as tests use it: at a time that they set, one call after the other, on buckets that nobody has used."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from app.ratelimit import MICROSECONDS, Charge, Decision, Lease, Limit, Limiter, Taken
from app.ratelimit.redis import RedisLimiter
from hypothesis import settings

REPRODUCIBLY = settings(max_examples=60, deadline=None, derandomize=True, database=None, print_blob=True)
"""The same examples in every run."""

PATIENCE_SECONDS = 5
"""How long Redis may take where a test is about something else: longer than a busy machine needs."""


@dataclass
class Clock:
    """Stands still until it is moved."""

    microseconds: int = 1_000_000_000

    def __call__(self) -> float:
        return self.microseconds / MICROSECONDS

    def wait(self, seconds: float) -> None:
        self.microseconds += round(seconds * MICROSECONDS)


@dataclass
class Source:
    """A limiter and its clock. Every call returns once it is decided."""

    limiter: Limiter
    clock: Clock
    runner: asyncio.Runner

    def take(self, *charges: Charge, group: str = "ada", lease: Lease | None = None) -> Taken:
        return self.runner.run(self.limiter.take(charges, group=group, lease=lease))

    def take_one(self, limit: Limit, *, name: str = "key", who: str = "ada", group: str = "ada") -> Decision:
        [decision] = self.take(Charge(name, who, limit), group=group).decisions
        return decision

    def starts(self, lease: Lease, *, group: str = "ada") -> bool:
        """Whether a lease can be had."""
        taken = self.take(group=group, lease=lease)
        assert taken.allowed is not taken.crowded
        return taken.allowed

    def give_back(self, *charges: Charge, group: str = "ada") -> None:
        self.runner.run(self.limiter.give_back(charges, group=group))

    def end(self, lease: Lease, *, group: str = "ada") -> None:
        self.runner.run(_ended(self.limiter, lease, group))


NewSource = Callable[[], Source]
NewLimiter = Callable[..., RedisLimiter]


async def _ended(limiter: Limiter, lease: Lease, group: str) -> None:
    limiter.end(lease, group=group)
