"""How many requests a process works on at a time, and when a client that was refused may call again."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from app.core.errors import Overloaded
from app.core.logs import logger
from app.core.metrics import Metrics
from app.core.server_settings import Network
from app.web.client_address import is_in
from app.web.state import RequestState

PATHS_WITHOUT_SLOT = frozenset({"/health", "/ready", "/metrics"})
"""Paths that are always answered: an operator needs them most while the process is overloaded."""

RETURNS_PER_SECOND = 500
"""At most so many refused clients are asked to call again within the same second."""
RETRY_SECONDS_MAX = 30
"""No client is asked to wait longer than this."""

_LOG_SECONDS = 1


class OverloadGuard:
    """Bounds the requests that this process works on at a time. `free_slots` is how many more may start.

    A request holds a slot until its response starts: a client that reads slowly holds none. Nor does one whose body is
    awaited; as many requests as there are slots may await theirs, and one more ends the longest wait of the address
    that has most waits. Refused clients are asked to call again one after another, so that refusing them takes a few
    per cent of a core however many they are. Once a second, a line in the log says how many were refused.
    """

    def __init__(self, slots: int, metrics: Metrics, *, proxies: Sequence[Network]) -> None:
        self.free_slots = self._slots = slots
        self._bodies_awaited: dict[asyncio.Timeout, str] = {}
        """The waits, the longest first, each with the address of its client."""
        self.metrics = metrics.requests
        self.metrics.in_progress.watch(lambda: self._slots - self.free_slots)
        self.metrics.most.watch(lambda: self._slots)
        self._proxies = proxies
        self._last_return = -math.inf
        self._refused = 0
        self._log_timer: asyncio.TimerHandle | None = None

    def count_refusal(self, now: float) -> int:
        """Counts a refused request. Returns the seconds after which its client may call again, for `Retry-After`.
        `now` is the event loop's time.
        """
        self.metrics.overload_refusals.add()
        self._refused += 1
        if self._log_timer is None:
            self._log_timer = asyncio.get_running_loop().call_later(_LOG_SECONDS, self._log_refusals)
        self._last_return = next_return(self._last_return, now=now)
        # Rounded first: with large clock values the difference may be 29.999... seconds instead of 30.
        return max(1, int(round(self._last_return - now, 3)))

    def is_proxy(self, host: str | None) -> bool:
        """Whether a trusted proxy has this address. A peer without one, on a Unix socket, counts as a proxy."""
        return host is None or is_in(self._proxies, host)

    @contextmanager
    def without_slot(self, state: RequestState, wait: asyncio.Timeout, *, address: str) -> Iterator[None]:
        """Around the wait for a body from this address: gives back the slot that the request holds, and takes one again
        at the end. Raises Overloaded if none is free then.
        """
        if len(self._bodies_awaited) >= self._slots:
            self._end_a_wait()
        self._bodies_awaited[wait] = address
        holds_slot = state.get("holds_slot", False)
        self.free_slots += holds_slot
        state["holds_slot"] = False
        try:
            yield
        finally:
            self._bodies_awaited.pop(wait, None)
        if holds_slot:
            if self.free_slots <= 0:
                raise Overloaded(retry_after_seconds=self.count_refusal(asyncio.get_running_loop().time()))
            self.free_slots -= 1
            state["holds_slot"] = True

    def await_until(self, deadline: float | None, wait: asyncio.Timeout) -> None:
        """Lets the wait for a body last until then, or without an end, unless it has been ended for another."""
        if wait in self._bodies_awaited:
            wait.reschedule(deadline)

    def hand_over(self, state: RequestState) -> Callable[[], None]:
        """Takes the slot from a request that holds one, for work that goes on after its response has begun. The slot is
        given back when the result is called.
        """
        is_held = state.get("holds_slot", False)
        state["holds_slot"] = False

        def give_back() -> None:
            self.free_slots += is_held

        return give_back

    def close(self) -> None:
        """Logs the refusals since the last line. To be called before the process ends."""
        if self._log_timer is not None:
            self._log_timer.cancel()
            self._log_refusals()

    def _end_a_wait(self) -> None:
        waits = Counter(self._bodies_awaited.values())
        most = max(waits, key=waits.__getitem__)
        longest = next(wait for wait, address in self._bodies_awaited.items() if address == most)
        del self._bodies_awaited[longest]
        if not longest.expired():
            longest.reschedule(0)  # long ago, by the loop's clock: its block raises TimeoutError now

    def _log_refusals(self) -> None:
        logger.warning("overloaded", every_time=True, refused=self._refused)
        self._refused, self._log_timer = 0, None


def next_return(last: float, *, now: float) -> float:
    """When the next refused client may call again, given the time `last` of the one before: one RETURNS_PER_SECOND-th
    of a second later, but between one second and RETRY_SECONDS_MAX from `now`.
    """
    return min(max(now + 1, last + 1 / RETURNS_PER_SECOND), now + RETRY_SECONDS_MAX)
