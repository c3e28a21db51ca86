"""A limiter as tests use it: synchronous, by a clock that the test sets, on buckets that nothing was taken from."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from app.ratelimit import MICROSECONDS, Decision, Limit, Limiter, Slot, Take, TakeResult
from app.ratelimit.redis import RedisLimiter
from hypothesis import settings

REPRODUCIBLY = settings(max_examples=60, deadline=None, derandomize=True, database=None, print_blob=True)
"""The same examples in every run."""

PATIENCE_SECONDS = 5
"""How long Redis may take in tests of something else: longer than a busy machine needs."""


@dataclass
class Clock:
    """Stands still until the test moves it."""

    microseconds: int = 1_000_000_000

    def __call__(self) -> float:
        return self.microseconds / MICROSECONDS

    def advance(self, seconds: float) -> None:
        self.microseconds += round(seconds * MICROSECONDS)


@dataclass
class SyncLimiter:
    """A limiter with its clock. Every call returns once it is decided."""

    limiter: Limiter
    clock: Clock
    runner: asyncio.Runner

    def take(self, *takes: Take, group: str = "ada", slot: Slot | None = None) -> TakeResult:
        return self.runner.run(self.limiter.take(takes, group=group, slot=slot))

    def take_one(self, limit: Limit, *, name: str = "key", subject: str = "ada", group: str = "ada") -> Decision:
        [decision] = self.take(Take(name, subject, limit), group=group).decisions
        return decision

    def acquires(self, slot: Slot, *, group: str = "ada") -> bool:
        """Takes a slot and nothing else; False if none is free."""
        result = self.take(group=group, slot=slot)
        assert result.allowed is not result.no_free_slot
        return result.allowed

    def give_back(self, *takes: Take, group: str = "ada") -> None:
        self.runner.run(self.limiter.give_back(takes, group=group))

    def release(self, slot: Slot, *, group: str = "ada") -> None:
        self.runner.run(_release(self.limiter, slot, group))


NewSyncLimiter = Callable[[], SyncLimiter]
NewRedisLimiter = Callable[..., RedisLimiter]


async def _release(limiter: Limiter, slot: Slot, group: str) -> None:
    limiter.release(slot, group=group)
