"""The periods of accounts and of caps follow each other in UTC, and are those that PostgreSQL finds."""

from datetime import UTC, datetime, timedelta, timezone

import asyncpg
import pytest
from app.billing.periods import Period, period_of_account, period_of_cap
from app.models.billing import CapPeriod
from hypothesis import example, given
from hypothesis import strategies as st

ZONES = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))
TIMES = st.builds(datetime.fromtimestamp, st.integers(600_000_000, 4_500_000_000), ZONES)
ANCHORS = st.integers(1, 28).map(lambda day: timedelta(days=day - 1))
A_DAY, THE_LEAST = timedelta(days=1), timedelta(microseconds=1)
LEAP_DAY = datetime(2028, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
NEVER = datetime.fromordinal(1)
"""As the driver reads -infinity."""
MONTHS_OF_LEAP_DAY = {
    1: ("2028-02-01", "2028-03-01"),
    28: ("2028-02-28", "2028-03-28"),
    15: ("2028-02-15", "2028-03-15"),
}


@given(at=TIMES, anchor=ANCHORS)
@example(at=LEAP_DAY, anchor=timedelta(days=27))
def test_each_time_is_in_one_period_that_begins_on_the_accounts_day(at: datetime, anchor: timedelta) -> None:
    period = period_of_account(at, anchor=anchor)
    assert period.start <= at < period.end
    assert 28 * A_DAY <= period.end - period.start <= 31 * A_DAY
    assert (period.start.day, period.start.astimezone(UTC).time().isoformat()) == (anchor.days + 1, "00:00:00")
    assert period_of_account(period.start, anchor=anchor) == period_of_account(period.end - THE_LEAST, anchor=anchor)
    assert period_of_account(period.end, anchor=anchor).start == period.end


@pytest.mark.parametrize("day", MONTHS_OF_LEAP_DAY)
def test_a_period_ends_on_the_day_on_which_it_began(day: int) -> None:
    period = period_of_account(LEAP_DAY, anchor=timedelta(days=day - 1))
    assert (period.start.date().isoformat(), period.end.date().isoformat()) == MONTHS_OF_LEAP_DAY[day]


@given(at=TIMES, period=st.sampled_from(("day", "month")))
def test_a_cap_is_for_a_calendar_day_or_month(at: datetime, period: CapPeriod) -> None:
    found = period_of_cap(at, period=period)
    assert found.start <= at < found.end
    assert found.end - found.start == A_DAY or (period == "month" and found.start.day == found.end.day == 1)
    assert found.start.utcoffset() == found.end.utcoffset() == timedelta()


def test_what_was_spent_counts_until_a_new_period_begins() -> None:
    period = Period(LEAP_DAY, LEAP_DAY + A_DAY)
    assert period.spent(7, since=LEAP_DAY) == period.spent(7, since=LEAP_DAY + A_DAY) == 7
    assert period.spent(7, since=LEAP_DAY - THE_LEAST) == 0
    assert period.spent(7, since=NEVER) == 0


async def test_postgresql_finds_the_same_periods_as_the_program(database: asyncpg.Connection) -> None:
    times = [LEAP_DAY + hours * timedelta(hours=17) for hours in range(-400, 400)]
    anchors = [timedelta(days=number % 28) for number in range(len(times))]
    rows = await database.fetch(
        """
        select at, anchor, date_trunc('month', at - anchor, 'UTC') + anchor as of_account,
          date_trunc('day', at, 'UTC') as of_day, date_trunc('month', at, 'UTC') as of_month
        from unnest($1::timestamptz[], $2::interval[]) as times(at, anchor)
        """,
        times,
        anchors,
    )
    for row in rows:
        assert row["of_account"] == period_of_account(row["at"], anchor=row["anchor"]).start
        assert row["of_day"] == period_of_cap(row["at"], period="day").start
        assert row["of_month"] == period_of_cap(row["at"], period="month").start
