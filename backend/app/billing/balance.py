"""What an account may spend and has spent, as it is now."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.periods import period_of_account
from app.billing.subscriptions import IN_FORCE
from app.models import Balance, Subscription

Mode = Literal["prepaid", "postpaid"]


@dataclass(frozen=True)
class BalanceState:
    """The money of an account, in millionths of the currency, and the period that `spent` belongs to."""

    mode: Mode
    """Whether it pays in advance or afterwards."""
    credit: int
    """The sum of its entries."""
    held: int
    """The prices of generations that are queued or processing."""
    charged: int
    """What deliveries took from the credit."""
    available: int | None
    """What generations may cost now, its cap aside; None for an account that pays afterwards."""
    allowance: int
    """How much of what is spent in a period is paid by its plan."""
    spent: int
    """The prices of what was delivered in this period."""
    cap: int | None
    """The most that may be spent in a period."""
    period_start: datetime
    period_end: datetime
    plan: str | None
    """Its name in the catalogue; None without one, or while it is stopped."""


async def find(session: AsyncSession, *, account_id: str) -> BalanceState:
    """The account's balance, and its period by the database's clock."""
    statement = (
        select(Balance, func.clock_timestamp(), Subscription.plan)
        .outerjoin(Subscription, (Subscription.account_id == Balance.account_id) & Subscription.status.in_(IN_FORCE))
        .where(Balance.account_id == account_id)
        .execution_options(populate_existing=True)
    )
    balance, now, plan = (await session.execute(statement)).one()
    period = period_of_account(now, anchor=balance.anchor)
    spent = period.spent(balance.spent, since=balance.period)
    available = balance.credit - balance.charged - balance.held + max(balance.allowance - spent, 0)
    return BalanceState(
        mode="postpaid" if balance.is_postpaid else "prepaid",
        credit=balance.credit,
        held=balance.held,
        charged=balance.charged,
        available=None if balance.is_postpaid else available,
        allowance=balance.allowance,
        spent=spent,
        cap=balance.cap,
        period_start=period.start,
        period_end=period.end,
        plan=plan,
    )
