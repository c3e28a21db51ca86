"""Lists what changed an account's credit, and what it was charged."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Literal

from sqlalchemy import exists, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.cursor import Cursor
from app.core.errors import Invalid
from app.models import Charge, CreditEntry, Subscription
from app.models.base import total

ChargesBy = Literal["hour", "day"]


@dataclass(frozen=True)
class ChargeRow:
    """What was delivered in an hour or on a UTC day, in millionths, and what has paid for it."""

    start: datetime
    amount: int
    from_allowance: int
    from_credit: int
    billed: int

    @property
    def id(self) -> str:
        return ""

    @property
    def created_at(self) -> datetime:
        return self.start


async def find_entries(
    session: AsyncSession, *, account_id: str, after: Cursor | None, limit: int
) -> Sequence[CreditEntry]:
    """The account's entries, newest first: at most `limit`, of those that follow `after`."""
    statement = select(CreditEntry).where(CreditEntry.account_id == account_id)
    if after is not None:
        position = tuple_(CreditEntry.created_at, CreditEntry.id)
        statement = statement.where(position < tuple_(after.created_at, after.id))
    newest_first = statement.order_by(CreditEntry.created_at.desc(), CreditEntry.id.desc()).limit(limit)
    return (await session.scalars(newest_first)).all()


async def find_charges(
    session: AsyncSession,
    *,
    account_id: str,
    first: date | None,
    last: date | None,
    group_by: ChargesBy,
    after: Cursor | None,
    limit: int,
) -> Sequence[ChargeRow]:
    """The account's charges from `first` to `last`, both included, newest first: a row for each hour or UTC day in
    which something was charged, at most `limit`, of those that follow `after`.

    Raises Invalid for days in the wrong order.
    """
    if first and last and first > last:
        raise Invalid([{"parameter": "from", "detail": "Must not be after `to`"}])
    start = Charge.hour if group_by == "hour" else func.date_trunc("day", Charge.hour, "UTC")
    sums = map(total, (Charge.amount, Charge.from_allowance, Charge.from_credit, Charge.billed))
    statement = select(start, *sums).where(Charge.account_id == account_id)
    if first is not None:
        statement = statement.where(Charge.hour >= datetime.combine(first, time.min, UTC))
    if last is not None:
        statement = statement.where(Charge.hour <= datetime.combine(last, time.max, UTC))
    if after is not None:  # the hours of a day that was listed are none before it
        statement = statement.where(Charge.hour < after.created_at)
    rows: Sequence[Any] = (await session.execute(statement.group_by(start).order_by(start.desc()).limit(limit))).all()
    return [ChargeRow(*row) for row in rows]


async def find_subscription(session: AsyncSession, *, account_id: str) -> Subscription | None:
    """The plan that the account has, or had last; None where it never had one."""
    return await session.get(Subscription, account_id)


async def has_arrived(session: AsyncSession, *, account_id: str, since: datetime) -> bool:
    """Whether a top-up was entered, or a plan has begun, since then."""
    top_up = exists().where(
        CreditEntry.account_id == account_id, CreditEntry.kind == "top_up", CreditEntry.created_at >= since
    )
    plan = exists().where(Subscription.account_id == account_id, Subscription.started_at >= since)
    return bool(await session.scalar(select(top_up | plan)))
