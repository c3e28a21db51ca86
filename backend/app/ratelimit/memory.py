"""Buckets and slots in the memory of one process: of a single process, or a share of them of one among several."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache

from app.ratelimit import MICROSECONDS, Limit, Slot, Take, TakeResult, decide

_BUCKETS_MAX = 100_000

_Bucket = tuple[str, str, str]


class MemoryLimiter:
    """A limiter for the calls of this process, which enforces one of `processes` equal shares of every limit.

    Shares are rounded up, so all processes together let at most one unit each through beyond the limit. Decisions name
    the whole limit. Memory is bounded: beyond `buckets_max` the bucket that was used longest ago is forgotten.
    """

    is_degraded = False

    def __init__(self, *, clock: Callable[[], float], processes: int = 1, buckets_max: int = _BUCKETS_MAX) -> None:
        self._clock = clock
        self._processes = processes
        self._buckets_max = buckets_max
        self._tats: OrderedDict[_Bucket, int] = OrderedDict()
        self._held_until: dict[tuple[str, str], dict[str, int]] = {}

    async def take(self, takes: Sequence[Take], *, group: str, slot: Slot | None = None) -> TakeResult:
        # No await between reading and writing: on one event loop that is what makes a decision atomic.
        now = self._now()
        shares = takes if self._processes == 1 else [self._share_of(take) for take in takes]
        found = []
        for share in shares:
            name, subject, limit, _ = share
            tat = self._tats.get((group, name, subject), 0)
            # As it counts now: not in the past; and no further ahead than the burst tolerance, as it may be after the
            # limit was changed or the clock was set back: no caller waits longer than an empty bucket takes to fill.
            found.append((share, now if tat <= now else min(tat, now + limit.burst_tolerance)))
        no_free_slot = slot is not None and self._has_no_free_slot(slot, group=group, now=now)
        result = decide(found, now=now, no_free_slot=no_free_slot)
        tats = self._tats
        for (name, subject, limit, units), tat in found:
            bucket = group, name, subject
            if result.allowed:
                tats[bucket] = tat + units * limit.emission_interval
            elif bucket in tats:
                tats[bucket] = min(tat, tats[bucket])  # the wait in the decision counts from the clamped TAT
            else:
                continue
            tats.move_to_end(bucket)
        while len(tats) > self._buckets_max:
            tats.popitem(last=False)
        if result.allowed and slot is not None:
            until = now + slot.seconds * MICROSECONDS
            held = self._held_until.setdefault((group, slot.subject), {})
            for each in slot.ids:
                held[each] = until
        return result if shares is takes else _with_whole_limits(result, takes)

    async def give_back(self, takes: Sequence[Take], *, group: str) -> None:
        for take in takes:
            bucket = group, take.name, take.subject
            if bucket in self._tats:
                self._tats[bucket] -= self._share_of(take).increment

    def release(self, slot: Slot, *, group: str) -> None:
        held = self._held_until.get((group, slot.subject))
        if held is not None:
            for each in slot.ids:
                held.pop(each, None)
            if not held:
                del self._held_until[group, slot.subject]

    def holds(self, slot: Slot, *, group: str) -> bool:
        """Whether the slot was taken here and has not been released."""
        return slot.ids[0] in self._held_until.get((group, slot.subject), ())

    def _share_of(self, take: Take) -> Take:
        return take._replace(limit=_share(take.limit, self._processes))

    def _has_no_free_slot(self, slot: Slot, *, group: str, now: int) -> bool:
        held, slots = self._held_until.get((group, slot.subject), {}), -(-slot.slots // self._processes)
        if len(held) + slot.number <= slots:
            return False
        for expired in [each for each, until in held.items() if until <= now]:
            del held[expired]
        if not held:
            self._held_until.pop((group, slot.subject), None)
        return len(held) + slot.number > slots

    def _now(self) -> int:
        return round(self._clock() * MICROSECONDS)


def _with_whole_limits(result: TakeResult, takes: Sequence[Take]) -> TakeResult:
    pairs = zip(result.decisions, takes, strict=True)
    return result._replace(decisions=[decision._replace(limit=take.limit) for decision, take in pairs])


@cache
def _share(limit: Limit, processes: int) -> Limit:
    return Limit(-(-limit.count // processes), limit.window_seconds)
