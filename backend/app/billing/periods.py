"""Periods of spending, in UTC: the months of an account, which begin on a day of its own, and those of a key's cap.

`caps` has the latter in SQL too, as the ledger's statements have both.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.models.billing import CapPeriod

_DAY = timedelta(days=1)
_MORE_THAN_A_MONTH = timedelta(days=32)


@dataclass(frozen=True)
class Period:
    """From `start` on, until just before `end`."""

    start: datetime
    end: datetime

    def spent(self, spent: int, *, since: datetime) -> int:
        """What a row says was spent since its `period` began, as it counts in this one: 0 where this one is newer."""
        # The driver reads '-infinity' as the least time there is, without a zone.
        return 0 if self.start > since.replace(tzinfo=UTC) else spent


def period_of_account(at: datetime, *, anchor: timedelta) -> Period:
    """The period that a time belongs to. Each begins `anchor`, under 28 days, after a month has."""
    month = _month_of(at.astimezone(UTC) - anchor)
    return Period(month + anchor, _month_of(month + _MORE_THAN_A_MONTH) + anchor)


def period_of_cap(at: datetime, *, period: CapPeriod) -> Period:
    """The calendar day or month that a time belongs to."""
    if period == "month":
        return period_of_account(at, anchor=timedelta(0))
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Period(day, day + _DAY)


def _month_of(at: datetime) -> datetime:
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
