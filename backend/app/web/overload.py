"""How much a process works on at a time, and when those for whom there is no room may come again."""

import asyncio
import math
from collections.abc import Sequence

from app.core.logs import logger
from app.core.metrics import Metrics
from app.core.settings import Network
from app.web.client_address import is_in

ALWAYS_ANSWERED = frozenset({"/health", "/ready", "/metrics"})
"""Paths that need no place: whoever asks for them wants to know how things are when they are worst."""

RETURNS_PER_SECOND = 500
"""So many of those who were refused are told to come again within one second."""
RETRY_SECONDS_MAX = 30

_TELL_SECONDS = 1


class Door:
    """Lets at most `places` requests be at work; `room` is how many more may come in.

    A request is at work until its answer begins: how slowly a caller reads is not for others to wait for. Who is
    refused gets a turn: the callers come again one after another, so that telling them costs a few per cent of a core
    however many there are. A line of the log tells each second how many were refused.
    """

    def __init__(self, places: int, metrics: Metrics, *, proxies: Sequence[Network]) -> None:
        self.room = places
        self._metrics = metrics
        self._proxies = proxies
        self._last_turn = -math.inf  # nobody has one yet
        self._refused = 0
        self._telling: asyncio.TimerHandle | None = None

    def refuse(self, now: float) -> int:
        """Counts a refusal, and says how many seconds later this caller may come again. `now` is the event loop's."""
        self._metrics.overload_refusals.inc()
        self._refused += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)
        self._last_turn = next_turn(self._last_turn, now=now)
        # Rounded first: a clock's large numbers make 29.999... of 30.
        return max(1, int(round(self._last_turn - now, 3)))

    def is_proxy(self, host: str | None) -> bool:
        """Whether a trusted proxy calls from there. Who has no address is on this machine, as a proxy is."""
        return host is None or is_in(self._proxies, host)

    def close(self) -> None:
        """Tells of those who have not been told of yet: the process ends."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell()

    def _tell(self) -> None:
        logger.warning("overloaded", refused=self._refused)
        self._refused, self._telling = 0, None


def next_turn(last: float, *, now: float) -> float:
    """The turn behind `last`: at least a second away, at most RETRY_SECONDS_MAX, and where those two leave it the
    choice, one RETURNS_PER_SECOND-th of a second after `last`.
    """
    return min(max(now + 1, last + 1 / RETURNS_PER_SECOND), now + RETRY_SECONDS_MAX)
