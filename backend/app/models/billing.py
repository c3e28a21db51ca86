"""Money: what an account may spend, what it has paid, and what it was charged.

All amounts are integers, in millionths of the deployment's currency.
"""

from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, false, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.accounts import Account
from app.models.base import ID, TIME, Base, after_create

CapPeriod = Literal["day", "month"]
EntryKind = Literal["top_up", "grant", "refund", "adjustment", "expiry"]
SubscriptionStatus = Literal["active", "past_due", "stopped", "cancelled"]


class Balance(Base):
    """The money of an account, in millionths of the deployment's currency.

    Available is `credit - charged - held + greatest(allowance - spent, 0)` for an account that pays in advance.
    """

    __tablename__ = "balances"
    __table_args__ = (
        CheckConstraint("charged >= 0", name="charged"),
        CheckConstraint("held >= 0", name="held"),
        CheckConstraint("allowance >= 0", name="allowance"),
        CheckConstraint("cap >= 0", name="cap"),
        CheckConstraint("spent >= 0", name="spent"),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    is_postpaid: Mapped[bool] = mapped_column(server_default=false())
    """True for an account that is billed after the fact: its credit is not asked, only its cap."""
    credit: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The sum of the account's credit entries."""
    charged: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """What deliveries took from the credit."""
    held: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The sum of the prices of generations that are queued or processing."""
    allowance: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """How much of each period's spending is free; it is used before the credit."""
    cap: Mapped[int | None] = mapped_column(BigInteger)
    """The most that may be spent in a period; null for no cap."""
    anchor: Mapped[timedelta] = mapped_column(server_default=text("'0'"))
    """How long after the month's begin, in UTC, a period begins."""
    period: Mapped[datetime] = mapped_column(TIME, server_default=text("'-infinity'"))
    """When the period began that `spent` belongs to."""
    spent: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The prices of what was delivered since then."""


# By the database, so that no account is without one: not those of the version before, and not those of sign-up.
after_create(
    Account.__table__,
    """
create function open_balance() returns trigger language plpgsql as $$
begin
  insert into balances (account_id) values (new.id) on conflict do nothing;
  return null;
end
$$
""",
    "create trigger accounts_open_balance after insert on accounts for each row execute function open_balance()",
)


class Charge(Base):
    """What an account was charged for the deliveries of one hour, and what has paid for it. Once it is closed nothing
    is added to it, and what is billed afterwards can be reported to the payment provider.
    """

    __tablename__ = "charges"
    __table_args__ = (
        CheckConstraint("amount = from_allowance + from_credit + billed", name="amount"),
        Index("charges_of_hour_idx", "hour"),
        Index("charges_unreported_idx", "hour", postgresql_where=text("billed > 0 and reported_at is null")),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(TIME, primary_key=True)
    """When the hour began, in UTC."""
    amount: Mapped[int] = mapped_column(BigInteger)
    from_allowance: Mapped[int] = mapped_column(BigInteger)
    from_credit: Mapped[int] = mapped_column(BigInteger)
    billed: Mapped[int] = mapped_column(BigInteger)
    """What an account that pays afterwards is to be sent an invoice for."""
    closed_at: Mapped[datetime | None] = mapped_column(TIME)
    tried_at: Mapped[datetime | None] = mapped_column(TIME)
    """When it was reported for the first time, whether or not that arrived."""
    reported_at: Mapped[datetime | None] = mapped_column(TIME)
    """When the payment provider has confirmed it."""


class CreditEntry(Base):
    """One change of an account's credit. It is never changed or deleted: a wrong one is corrected by another."""

    __tablename__ = "credit_entries"
    __table_args__ = (
        CheckConstraint("kind in ('top_up', 'grant', 'refund', 'adjustment', 'expiry')", name="kind"),
        CheckConstraint("amount <> 0", name="amount"),
        UniqueConstraint("reference"),
        Index("credit_entries_of_account_idx", "account_id", "created_at", "id"),
        Index("credit_entries_expiring_idx", "expires_at", postgresql_where=text("expires_at is not null")),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    kind: Mapped[EntryKind] = mapped_column(Text)
    amount: Mapped[int] = mapped_column(BigInteger)
    reference: Mapped[str] = mapped_column(Text)
    """What it is for, such as `stripe:pi_3NXq`: of two entries with one reference only the first is made."""
    expires_at: Mapped[datetime | None] = mapped_column(TIME)
    """From when on what is left of a grant is taken back."""
    charged_before: Mapped[int] = mapped_column(BigInteger)
    """`balances.charged` when it was made: what was charged since may have used it up."""
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())


class Subscription(Base):
    """The plan that an account has, or had last."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint("status in ('active', 'past_due', 'stopped', 'cancelled')", name="status"),
        CheckConstraint("anchor_day between 1 and 28", name="anchor_day"),
        UniqueConstraint("stripe_id"),
        Index("subscriptions_pending_idx", "account_id", postgresql_where=text("is_pending")),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    plan: Mapped[str] = mapped_column(Text)
    """Its name in the catalogue."""
    status: Mapped[SubscriptionStatus] = mapped_column(Text)
    """`past_due` while a payment is missing and the plan goes on for some days, `stopped` after that."""
    anchor_day: Mapped[int]
    """The day of the month on which its periods begin, in UTC."""
    started_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    """Since when the account has the plan as it is now: with these terms, and periods from this day on."""
    past_due_since: Mapped[datetime | None] = mapped_column(TIME)
    ends_at: Mapped[datetime | None] = mapped_column(TIME)
    """When it is cancelled; null while it goes on."""
    stripe_id: Mapped[str | None] = mapped_column(Text)
    """The subscription at Stripe; null for one that an operator has set."""
    terms: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """The plan as it was applied: a `PlanOffer`. With it the plan goes on where the catalogue has it no more."""
    is_pending: Mapped[bool] = mapped_column(server_default=false())
    """True while generations hold more of an earlier allowance than the plan has: it is taken back once they ended."""


class StripeCustomer(Base):
    """The customer at Stripe that stands for an account."""

    __tablename__ = "stripe_customers"
    __table_args__ = (UniqueConstraint("customer_id"),)

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    customer_id: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())


class StripeEvent(Base):
    """An event of Stripe's that was received, however often."""

    __tablename__ = "stripe_events"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    type: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now(), index=True)
    handled_at: Mapped[datetime | None] = mapped_column(TIME)
    """When all that follows from it was written; null while that is to be done again."""
