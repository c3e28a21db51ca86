"""Repeated errors: a stack is logged once in a while, and what repeats is counted."""

import time
from collections.abc import Callable, Hashable

SECONDS = 60
_DIFFERENT_MAX = 1000


class Repeats:
    """Counts how often each error was seen since `SECONDS` ago. At most a thousand different ones are remembered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Hashable, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def count(self, error: Hashable) -> int:
        """0 for an error that was not seen in the last `SECONDS`, else how often it was repeated since it was 0."""
        now = self._clock()
        first_at, repeated = self._seen.get(error, (now, -1))
        if now >= first_at + SECONDS:
            first_at, repeated = now, -1
        if len(self._seen) >= _DIFFERENT_MAX:
            self._seen.clear()
        self._seen[error] = first_at, repeated + 1
        return repeated + 1
