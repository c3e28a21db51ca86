"""Repeated errors: a stack is logged once in a while, and what repeats is counted."""

import time
from collections.abc import Callable, Hashable

SECONDS = 60
_DIFFERENT_MAX = 1000


class Repeats:
    """Counts how often the same was seen since `SECONDS` ago. At most a thousand different things are remembered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Hashable, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def count(self, what: Hashable) -> int:
        """0 for what has not been seen in the last `SECONDS`, else how often it has been repeated since it was 0."""
        now = self._clock()
        first_at, repeated = self._seen.get(what, (now, -1))
        if now >= first_at + SECONDS:
            first_at, repeated = now, -1
        if len(self._seen) >= _DIFFERENT_MAX:
            self._seen.clear()
        self._seen[what] = first_at, repeated + 1
        return repeated + 1
