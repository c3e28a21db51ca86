"""The database's time, by which stored things are dated, and the days of UTC."""

from collections.abc import Callable
from datetime import UTC, date, datetime


class DatabaseClock:
    """Seconds since 1970 by the clock of the database.

    It is the clock of this process, which may be wrong by any time, with the difference between the two as it was when
    the database last said its time. Until it first has, it is the clock of this process.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._difference = 0.0

    def __call__(self) -> float:
        return self._clock() + self._difference

    def now(self) -> datetime:
        """The same in UTC."""
        return datetime.fromtimestamp(self(), UTC)

    def set(self, now: datetime) -> None:
        """`now` is what the database says at this moment."""
        self._difference = now.timestamp() - self._clock()


def midnight(day: date) -> datetime:
    """When the UTC day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
