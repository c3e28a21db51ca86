"""A period of an account explained: what has changed its credit, and what it was charged for.

All amounts are in millionths. A `MonthReport` is one snapshot: the sums of its days and of its uses are equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.billing.periods import Period
from app.models import ApiKey, Charge, CreditEntry, Usage
from app.models.base import total

SHOWN_MAX = 100
"""Rows of entries, and of uses, that a report has. All others are one sum."""

SNAPSHOT: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ"}
"""Execution options of the connection that `find_report` reads on."""


@dataclass(frozen=True)
class ChargedDay:
    """What was delivered on a UTC day, and what has paid for it."""

    day: date
    amount: int
    from_allowance: int
    from_credit: int
    billed: int


@dataclass(frozen=True)
class Use:
    """What was charged for the images of one model that one key has made."""

    key_id: str
    key_name: str
    model: str
    images: int
    amount: int


@dataclass(frozen=True)
class MonthReport:
    """A period of an account."""

    period: Period
    opening: int
    """The credit at its begin, less what was charged to it by then."""
    entered: int
    """The sum of all its entries."""
    entries: Sequence[CreditEntry]
    """The newest of them, newest first."""
    days: Sequence[ChargedDay]
    """The days on which something was charged, in order."""
    uses: Sequence[Use]
    """What most was charged for, in order."""

    def total(self, name: str) -> int:
        """The sum of the days' amounts with this name, such as `from_credit`."""
        return sum(int(getattr(each, name)) for each in self.days)

    @property
    def closing(self) -> int:
        """The credit at its end, or until now, less what was charged to it by then."""
        return self.opening + self.entered - self.total("from_credit")

    @property
    def other_entries(self) -> int:
        """The sum of the entries that are not among `entries`."""
        return self.entered - sum(each.amount for each in self.entries)

    @property
    def other_uses(self) -> int:
        """What was charged for all that is not among `uses`."""
        return self.total("amount") - sum(each.amount for each in self.uses)


async def find_report(session: AsyncSession, *, account_id: str, period: Period) -> MonthReport:
    """The account's period, which begins and ends with a UTC day. Begins the session's transaction, as a snapshot."""
    await session.connection(execution_options=SNAPSHOT)
    own_entry, own_charge = CreditEntry.account_id == account_id, Charge.account_id == account_id
    entries_before = _sum(CreditEntry.amount).where(own_entry, CreditEntry.created_at < period.start)
    charged_before = _sum(Charge.from_credit).where(own_charge, Charge.hour < period.start)
    of_period = own_entry, CreditEntry.created_at >= period.start, CreditEntry.created_at < period.end
    sums = select(*(each.scalar_subquery() for each in (entries_before, charged_before)))
    entered_before, taken_before = (await session.execute(sums)).one()
    newest_first = CreditEntry.created_at.desc(), CreditEntry.id.desc()
    entries = await session.scalars(select(CreditEntry).where(*of_period).order_by(*newest_first).limit(SHOWN_MAX))
    return MonthReport(
        period=period,
        opening=entered_before - taken_before,
        entered=(await session.execute(_sum(CreditEntry.amount).where(*of_period))).scalar_one(),
        entries=entries.all(),
        days=await _find_days(session, account_id, period),
        uses=await find_uses(session, account_id=account_id, first=period.start, end=period.end, limit=SHOWN_MAX),
    )


async def find_uses(
    session: AsyncSession, *, account_id: str, first: datetime, end: datetime, limit: int | None = None
) -> Sequence[Use]:
    """What was charged by key and model on the UTC days from `first` to before `end`: the most first."""
    amount, images = total(Usage.amount), total(Usage.pictures)
    statement = (
        select(Usage.key_id, ApiKey.name, Usage.model, images, amount)
        .join(ApiKey, ApiKey.id == Usage.key_id)
        .where(ApiKey.account_id == account_id, Usage.amount != 0)
        .where(Usage.day >= first.astimezone(UTC).date(), Usage.day < end.astimezone(UTC).date())
        .group_by(Usage.key_id, ApiKey.name, Usage.model)
        .order_by(amount.desc(), Usage.key_id, Usage.model)
        .limit(limit)
    )
    return [Use(*row) for row in await session.execute(statement)]


async def _find_days(session: AsyncSession, account_id: str, period: Period) -> Sequence[ChargedDay]:
    day = func.date_trunc("day", Charge.hour, "UTC")
    amounts = (Charge.amount, Charge.from_allowance, Charge.from_credit, Charge.billed)
    statement = (
        select(day, *map(total, amounts))
        .where(Charge.account_id == account_id, Charge.hour >= period.start, Charge.hour < period.end)
        .group_by(day)
        .order_by(day)
    )
    rows: Sequence[Any] = (await session.execute(statement)).all()
    return [ChargedDay(start.astimezone(UTC).date(), *sums) for start, *sums in rows]


def _sum(column: InstrumentedAttribute[int]) -> Any:
    return select(func.coalesce(total(column), 0))
