"""Stripe's objects in this program's types."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from app.payments import CheckoutSession, Dispute, Invoice, Payment, Refund, StripeEvent, StripeSubscription
from app.payments.minor_units import to_millionths

if TYPE_CHECKING:  # the SDK is not imported where there is no key
    import stripe
    from stripe import checkout

ACCOUNT, PLAN, TOP_UP = "account_id", "plan", "top_up"
"""The keys of metadata: the account's id, a plan's name, and what a top-up buys, in millionths."""
_AMOUNT = re.compile(r"[1-9][0-9]{0,17}")
"""What is written for a top-up. Another program with the same account at Stripe may write anything."""


def checkout_session(found: "checkout.Session") -> CheckoutSession:
    return CheckoutSession(payment_id=_id(found.payment_intent), subscription_id=_id(found.subscription))


def payment(found: "stripe.PaymentIntent") -> Payment:
    top_up = _metadata(found, TOP_UP)
    return Payment(
        id=found.id,
        is_paid=found.status == "succeeded",
        account_id=_metadata(found, ACCOUNT),
        top_up=int(top_up) if top_up and _AMOUNT.fullmatch(top_up) else None,
        total=to_millionths(found.amount_received, found.currency),
        currency=found.currency.upper(),
    )


def refund(found: "stripe.Refund") -> Refund:
    return Refund(
        id=found.id,
        payment_id=_id(found.payment_intent),
        amount=to_millionths(found.amount, found.currency),
        currency=found.currency.upper(),
        status=cast('Literal["pending", "requires_action", "succeeded", "failed", "canceled"]', found.status),
    )


def dispute(found: "stripe.Dispute") -> Dispute:
    return Dispute(
        id=found.id,
        payment_id=_id(found.payment_intent),
        amount=to_millionths(found.amount, found.currency),
        currency=found.currency.upper(),
        status=found.status,
    )


def subscription(found: "stripe.Subscription") -> StripeSubscription:
    """The item of the plan is the one that is no metered one. A subscription to something else may have none."""
    item = min(found.items.data, key=is_metered)
    return StripeSubscription(
        id=found.id,
        status=cast("Any", found.status),
        account_id=_metadata(found, ACCOUNT),
        customer_id=_id(found.customer) or "",
        plan=_metadata(item.price, PLAN),
        price_id=item.price.id,
        price=to_millionths((item.price.unit_amount or 0) * (item.quantity or 0), item.price.currency),
        anchor=_time(found.billing_cycle_anchor),
        period_start=_time(item.current_period_start),
        period_end=_time(item.current_period_end),
        cancel_at=_time(found.cancel_at or item.current_period_end) if _is_ending(found) else None,
    )


def invoice(found: "stripe.Invoice") -> Invoice:
    details = found.parent and found.parent.subscription_details
    return Invoice(
        id=found.id,
        number=found.number,
        status=cast("Any", found.status),
        created_at=_time(found.created),
        period_start=_time(found.period_start),
        period_end=_time(found.period_end),
        total=to_millionths(found.total, found.currency),
        paid=to_millionths(found.amount_paid, found.currency),
        currency=found.currency.upper(),
        subscription_id=_id(details.subscription) if details else None,
        url=found.hosted_invoice_url,
        pdf_url=found.invoice_pdf,
    )


def is_metered(item: "stripe.SubscriptionItem") -> bool:
    """Whether it bills what meter events report, beside the plan itself."""
    return item.price.recurring is not None and item.price.recurring.usage_type == "metered"


def event(found: "stripe.Event") -> StripeEvent:
    return StripeEvent(found.id, found.type, object_id=getattr(found.data.object, "id", None) or "")


def _is_ending(found: "stripe.Subscription") -> bool:
    return found.cancel_at_period_end or found.cancel_at is not None


def _id(reference: Any) -> str | None:
    """The id of what a field refers to. No field is asked to be expanded."""
    return cast("str | None", reference)


def _metadata(found: Any, key: str) -> str | None:
    return cast("str | None", found.metadata.to_dict().get(key)) if found.metadata else None


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
