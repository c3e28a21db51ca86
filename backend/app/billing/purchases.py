"""What follows for an account's credit from its payments at Stripe, from their refunds and from their disputes.

Entries follow from what Stripe says of a payment when it is asked, never from what an event says. As time goes by that
can only call for more entries: a refund that fails later keeps the entry that took the credit, and calls for a second
one that returns it. So it does not matter in which order, how often and by how many at once a payment is followed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import select

from app.billing import entries
from app.catalogue.model import Catalogue
from app.core.db import SessionMaker
from app.core.logs import logger
from app.core.metrics.billing import BillingMetrics
from app.core.settings import Settings
from app.models import Account, EntryKind
from app.payments import Dispute, Payment, Refund
from app.payments.stripe import Stripe


class WrongCurrency(Exception):
    """A payment for credit was made in another currency than the deployment's."""


@dataclass(frozen=True)
class Purchases:
    """What buying needs: Stripe, and what is sold. No transaction is open while Stripe is asked."""

    stripe: Stripe
    sessions: SessionMaker
    catalogue: Catalogue
    grace: timedelta
    """How long a plan goes on while a payment for it is missing."""
    metrics: BillingMetrics


def open_purchases(
    settings: Settings, stripe: Stripe | None, sessions: SessionMaker, catalogue: Catalogue, metrics: BillingMetrics
) -> Purchases | None:
    """None without Stripe."""
    if stripe is None:
        return None
    return Purchases(stripe, sessions, catalogue, timedelta(days=settings.grace_days), metrics)


class Owed(NamedTuple):
    """An entry that there has to be."""

    kind: EntryKind
    amount: int
    reference: str


async def follow_payment(purchases: Purchases, payment_id: str, *disputes: Dispute) -> None:
    """Enters a top-up once it is paid, its refunds and these disputes of it, each of them once. A payment that is no
    top-up, or one for an account of another deployment, changes nothing.

    Raises StripeUnavailable and StripeRefused, WrongCurrency, and EntryMismatch.
    """
    payment = await purchases.stripe.payment_intent(payment_id)
    account_id = payment.account_id
    if account_id is None or payment.top_up is None or not payment.is_paid:
        return
    if payment.currency.upper() != purchases.catalogue.currency:
        raise WrongCurrency(f"{payment_id} was paid in {payment.currency.upper()}")
    refunds = await purchases.stripe.refunds_of(payment_id)
    async with purchases.sessions.begin() as session:
        if await session.scalar(select(Account.id).where(Account.id == account_id)) is None:
            logger.warning("stripe_account_unknown", account=account_id, object=payment_id)
            return
        for owed in owed_entries(payment, refunds, disputes):
            await entries.post(session, account_id=account_id, **owed._asdict(), metrics=purchases.metrics)


async def follow_refund(purchases: Purchases, refund_id: str) -> None:
    """The same for the payment of a refund."""
    refund = await purchases.stripe.refund(refund_id)
    if refund.payment_id is not None:
        await follow_payment(purchases, refund.payment_id)


async def follow_dispute(purchases: Purchases, dispute_id: str) -> None:
    """The same for the payment of a dispute, and for that dispute."""
    dispute = await purchases.stripe.dispute(dispute_id)
    if dispute.payment_id is not None:
        await follow_payment(purchases, dispute.payment_id, dispute)


def owed_entries(payment: Payment, refunds: Sequence[Refund], disputes: Sequence[Dispute]) -> Iterator[Owed]:
    """The entries that a paid top-up calls for. What was taken back of the payment takes as large a part of the credit,
    rounded down to a millionth: payments include taxes, and credit does not.
    """
    yield Owed("top_up", payment.top_up or 0, f"stripe:{payment.id}")
    for refund in refunds:
        yield from _taken(payment, refund, kind="refund", is_returned=not refund.is_given_back)
    for dispute in disputes:
        is_returned = dispute.status == "won"
        if dispute.is_withdrawn or is_returned:
            yield from _taken(payment, dispute, kind="adjustment", is_returned=is_returned)


def _taken(payment: Payment, taken: Refund | Dispute, *, kind: EntryKind, is_returned: bool) -> Iterator[Owed]:
    if taken.currency != payment.currency:
        raise WrongCurrency(f"{taken.id} is in {taken.currency.upper()}")
    amount = taken.amount * (payment.top_up or 0) // payment.total
    if amount:
        yield Owed(kind, -amount, f"stripe:{taken.id}")
    if amount and is_returned:
        yield Owed(kind, amount, f"stripe:{taken.id}:returned")
