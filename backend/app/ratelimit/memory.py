"""Buckets in the memory of one process: the whole truth for a single worker."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from app.ratelimit import MICROSECONDS, Charge, Decision, decide

_BUCKETS_MAX = 100_000


class MemoryLimiter:
    """A limiter for the callers of this process. Bounded: beyond `buckets_max` the one longest unused is forgotten."""

    def __init__(self, *, clock: Callable[[], float], buckets_max: int = _BUCKETS_MAX) -> None:
        self._clock = clock
        self._buckets_max = buckets_max
        self._full_at: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def take(self, charges: Sequence[Charge]) -> Sequence[Decision]:
        # No await between reading and writing: on one event loop that is what makes a decision atomic.
        now = round(self._clock() * MICROSECONDS)
        verdicts = [decide(charge, full_at=self._full_at.get(_bucket(charge)), now=now) for charge in charges]
        if all(decision.allowed for _, decision in verdicts):
            for charge, (full_at, _) in zip(charges, verdicts, strict=True):
                self._keep(_bucket(charge), full_at)
        return [decision for _, decision in verdicts]

    async def give_back(self, charges: Sequence[Charge]) -> None:
        for charge in charges:
            bucket = _bucket(charge)
            if bucket in self._full_at:
                self._full_at[bucket] -= charge.limit.interval

    def _keep(self, bucket: tuple[str, str], full_at: int) -> None:
        self._full_at[bucket] = full_at
        self._full_at.move_to_end(bucket)
        if len(self._full_at) > self._buckets_max:
            self._full_at.popitem(last=False)


def _bucket(charge: Charge) -> tuple[str, str]:
    return charge.name, charge.who
