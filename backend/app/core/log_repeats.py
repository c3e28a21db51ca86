"""Repeated lines: the first is written, those that follow are counted, and one line says how many they were."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

SECONDS = 60
_DIFFERENT_MAX = 1000
_OF_ONE_LINE = {
    *("timestamp", "request_id", "account", "provider_request_id", "bytes", "image_bytes"),
    *("entries", "settlements", "tries"),
}
"""Fields that may differ between lines that say the same."""

Event = MutableMapping[str, Any]


@dataclass(slots=True)
class _Seen:
    event: Event
    since: float
    repeated: int = 0


class Repeats:
    """Which lines are to be written, and the sums of the others. Lines say the same where all their fields but
    _OF_ONE_LINE are equal. At most a thousand different ones are remembered. Called by one thread at a time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Hashable, _Seen] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def is_new(self, event: Event) -> bool:
        """Whether the same was not said in the last SECONDS; where it was, it is counted. `take_due` is to be called
        before.
        """
        same = {name: value for name, value in event.items() if name not in _OF_ONE_LINE}
        key = repr(same)
        seen = self._seen.get(key)
        if seen is not None:
            seen.repeated += 1
            return False
        self._seen[key] = _Seen(same, self._clock())
        return True

    def take_due(self, *, all_of_them: bool = False) -> Iterator[Event]:
        """Forgets what was first said SECONDS ago, or everything. Yields a line for each that was repeated: the fields
        that all have, and how often it was said after the first time (`repeated`), within how many seconds.
        """
        now = self._clock()
        if len(self._seen) >= _DIFFERENT_MAX:
            all_of_them = True
        while self._seen:
            key, seen = next(iter(self._seen.items()))  # the first that was said
            if not all_of_them and now < seen.since + SECONDS:
                return
            del self._seen[key]
            if seen.repeated:
                seconds = min(SECONDS, math.ceil(now - seen.since))
                yield {**_without_stack(seen.event), "repeated": seen.repeated, "seconds": seconds}

    @property
    def seconds_left(self) -> float | None:
        """Until a repeated line is due; None where nothing was repeated."""
        since = [seen.since for seen in self._seen.values() if seen.repeated]
        return max(0.0, min(since) + SECONDS - self._clock()) if since else None


def _without_stack(event: Event) -> Event:
    if "exception" not in event:
        return event
    return {**event, "exception": {name: value for name, value in event["exception"].items() if name != "frames"}}
