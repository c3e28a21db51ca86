"""Buckets and leases in the memory of one process: the whole truth for a single worker, a share of it for several."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache

from app.ratelimit import MICROSECONDS, Charge, Lease, Limit, Taken, decide, level

_BUCKETS_MAX = 100_000

_Bucket = tuple[str, str, str]


class MemoryLimiter:
    """A limiter for the callers of this process, which holds one of `processes` equal shares of every limit.

    A share is rounded up, so all processes together let at most one unit each through that the limit does not. What is
    told of a limit is the whole. Bounded: beyond `buckets_max` the bucket longest unused is forgotten.
    """

    def __init__(self, *, clock: Callable[[], float], processes: int = 1, buckets_max: int = _BUCKETS_MAX) -> None:
        self._clock = clock
        self._processes = processes
        self._buckets_max = buckets_max
        self._full_at: OrderedDict[_Bucket, int] = OrderedDict()
        self._ends_at: dict[tuple[str, str], dict[str, int]] = {}

    async def take(self, charges: Sequence[Charge], *, group: str, lease: Lease | None = None) -> Taken:
        # No await between reading and writing: on one event loop that is what makes a decision atomic.
        now = self._now()
        mine = charges if self._processes == 1 else [self._share_of(charge) for charge in charges]
        buckets = [(group, charge.name, charge.who) for charge in charges]
        levels = [
            level(self._full_at.get(bucket, 0), charge.limit, now=now)
            for bucket, charge in zip(buckets, mine, strict=True)
        ]
        crowded = lease is not None and self._is_crowded(lease, group=group, now=now)
        taken = decide(mine, levels=levels, now=now, crowded=crowded)
        for bucket, charge, at in zip(buckets, mine, levels, strict=True):
            if taken.allowed:
                self._keep(bucket, at + charge.cost)
            elif bucket in self._full_at:
                self._keep(bucket, min(at, self._full_at[bucket]))  # what is told of the wait is reckoned from here
        if taken.allowed and lease is not None:
            self._ends_at.setdefault((group, lease.who), {})[lease.id] = now + lease.seconds * MICROSECONDS
        return taken if mine is charges else _told_of_the_whole(taken, charges)

    async def give_back(self, charges: Sequence[Charge], *, group: str) -> None:
        for charge in charges:
            bucket = group, charge.name, charge.who
            if bucket in self._full_at:
                self._full_at[bucket] -= self._share_of(charge).cost

    def end(self, lease: Lease, *, group: str) -> None:
        running = self._ends_at.get((group, lease.who))
        if running is not None:
            running.pop(lease.id, None)
            if not running:
                del self._ends_at[group, lease.who]

    def has(self, lease: Lease, *, group: str) -> bool:
        """Whether the lease was taken here and has not been ended."""
        return lease.id in self._ends_at.get((group, lease.who), ())

    def _share_of(self, charge: Charge) -> Charge:
        return charge._replace(limit=_share(charge.limit, self._processes))

    def _is_crowded(self, lease: Lease, *, group: str, now: int) -> bool:
        running, places = self._ends_at.get((group, lease.who), {}), -(-lease.places // self._processes)
        if len(running) < places:
            return False
        for ended in [each for each, ends_at in running.items() if ends_at <= now]:
            del running[ended]
        if not running:
            del self._ends_at[group, lease.who]
        return len(running) >= places

    def _keep(self, bucket: _Bucket, full_at: int) -> None:
        self._full_at[bucket] = full_at
        self._full_at.move_to_end(bucket)
        if len(self._full_at) > self._buckets_max:
            self._full_at.popitem(last=False)

    def _now(self) -> int:
        return round(self._clock() * MICROSECONDS)


def _told_of_the_whole(taken: Taken, charges: Sequence[Charge]) -> Taken:
    told = [each._replace(limit=charge.limit) for each, charge in zip(taken.decisions, charges, strict=True)]
    return taken._replace(decisions=told)


@cache
def _share(limit: Limit, processes: int) -> Limit:
    return Limit(-(-limit.count // processes), limit.window_seconds)
