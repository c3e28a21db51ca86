"""The breaker of a route: whether requests go there first, by what became of those that went before."""

import time
from collections.abc import Callable
from typing import Literal

from app.core.logs import logger

FAILURES_MAX = 5
WITHIN_SECONDS = 30.0
OPEN_SECONDS, OPEN_SECONDS_MAX = 10.0, 300.0
UNUSABLE_SECONDS = 60.0

State = Literal["closed", "open", "probing"]


class Breaker:
    """Of one route in one process. It opens after FAILURES_MAX failures within WITHIN_SECONDS without a success between
    them, for OPEN_SECONDS, and each time that it opens again without a success, for twice as long, OPEN_SECONDS_MAX at
    most. Then one request at a time may probe, until a success closes it.

    An open breaker says that other routes are to be tried first; it refuses nothing.
    """

    def __init__(
        self,
        route: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[str, State], None] = lambda _route, _state: None,
    ) -> None:
        """`on_change` is called with the route's name and `open` or `closed` when the breaker opens and closes."""
        self._route = route
        self._clock = clock
        self._on_change = on_change
        self._failed_at: list[float] = []
        self._open_seconds = OPEN_SECONDS
        self._open_until: float | None = None
        self._is_probing = False

    @property
    def state(self) -> State:
        if self._open_until is None:
            return "closed"
        return "probing" if self._is_probing else "open"

    def lets_through(self) -> bool:
        """Whether a request may be sent to the route before others are tried. Where it is a probe, further ones are
        not let through until `succeeded`, `failed` or `left_undecided` has been called.
        """
        if self._open_until is None:
            return True
        if self._is_probing or self._clock() < self._open_until:
            return False
        self._is_probing = True
        return True

    @property
    def would_let_through(self) -> bool:
        """The same, without beginning a probe."""
        return self._open_until is None or (not self._is_probing and self._clock() >= self._open_until)

    def succeeded(self) -> None:
        """The route has drawn an image: the breaker closes."""
        self._failed_at.clear()
        self._is_probing = False
        if self._open_until is not None:
            self._open_until, self._open_seconds = None, OPEN_SECONDS
            logger.warning("route_closed", every_time=True, route=self._route)
            self._on_change(self._route, "closed")

    def failed(self, *, is_unusable: bool = False, is_probe: bool = False) -> None:
        """A request failed for a reason that counts. `is_unusable` says that only the operator can mend it: the breaker
        opens at once, for UNUSABLE_SECONDS. While a request probes, its failure alone (`is_probe`) decides.
        """
        now = self._clock()
        if is_probe:
            self._is_probing = False
        if self._open_until is not None and not is_probe:
            return  # a request from before it opened, or one that was sent here for want of another route
        self._failed_at = [each for each in self._failed_at if now - each < WITHIN_SECONDS] + [now]
        if is_unusable:
            self._open(now + max(UNUSABLE_SECONDS, self._open_seconds))
        elif is_probe or len(self._failed_at) >= FAILURES_MAX:
            self._open(now + self._open_seconds)
            self._open_seconds = min(2 * self._open_seconds, OPEN_SECONDS_MAX)

    def left_undecided(self) -> None:
        """A request ended without saying anything about the route: another one may probe."""
        self._is_probing = False

    def _open(self, until: float) -> None:
        if self._open_until is None:
            seconds = round(until - self._clock())
            logger.warning("route_opened", every_time=True, route=self._route, seconds=seconds)
            self._on_change(self._route, "open")
        self._open_until = until
