"""Events of Stripe's: each is recorded, and what it is about is followed to where it stands now."""

from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip

from app.billing.plan_purchases import follow_subscription
from app.billing.purchases import Purchases, follow_dispute, follow_payment, follow_refund
from app.models import StripeEvent as EventRow
from app.payments import EVENTS, StripeEvent


async def follow_checkout(purchases: Purchases, session_id: str) -> None:
    """What was bought at a checkout. Raises what `follow_payment` and `follow_subscription` raise."""
    session = await purchases.stripe.session(session_id)
    if session.payment_id is not None:
        await follow_payment(purchases, session.payment_id)
    if session.subscription_id is not None:
        await follow_subscription(purchases, session.subscription_id)


async def follow_invoice(purchases: Purchases, invoice_id: str) -> None:
    """The subscription of an invoice. Raises what `follow_subscription` raises."""
    invoice = await purchases.stripe.invoice(invoice_id)
    if invoice.subscription_id is not None:
        await follow_subscription(purchases, invoice.subscription_id)


_FOLLOWED: Mapping[str, Callable[[Purchases, str], Awaitable[None]]] = {
    "checkout": follow_checkout,
    "customer": follow_subscription,
    "invoice": follow_invoice,
    "refund": follow_refund,
    "charge": follow_dispute,
}
"""What is done with the object of one of EVENTS, by the first word of its type."""


async def handle(purchases: Purchases, event: StripeEvent) -> None:
    """Returns once all that follows from the event is committed. May be called for it in any number of processes at
    once, and again after any crash: an event that is not marked as handled is followed anew, to the same end. One that
    is none of EVENTS is recorded, and changes nothing.

    Raises what following it raises.
    """
    new = insert_or_skip(EventRow).values(id=event.id, type=event.type).on_conflict_do_nothing()
    this = EventRow.id == event.id
    async with purchases.sessions.begin() as session:
        await session.execute(new)
        is_handled = await session.scalar(select(EventRow.handled_at.is_not(None)).where(this))
    if is_handled:
        return
    if event.type in EVENTS:
        await _FOLLOWED[event.type.partition(".")[0]](purchases, event.object_id)
    async with purchases.sessions.begin() as session:
        await session.execute(update(EventRow).where(this).values(handled_at=func.now()))
