"""What follows for an account's plan from its subscriptions at Stripe."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.billing import subscriptions
from app.billing.customers import CustomerGone, noticed_if_gone
from app.billing.purchases import Purchases
from app.billing.subscriptions import IN_FORCE, anchor_day_of
from app.catalogue.offers import PlanOffer
from app.core.logs import logger
from app.models import Account, Charge, StripeCustomer, Subscription, SubscriptionStatus, is_owner_of
from app.payments import StripeSubscription, StripeUnavailable

_STATUS: Mapping[str, SubscriptionStatus] = {
    "active": "active",
    "trialing": "active",
    "past_due": "past_due",
    "unpaid": "stopped",
    "paused": "stopped",
    "canceled": "cancelled",
}
"""What a subscription at Stripe is here. One whose first payment is missing (`incomplete`) is none."""
_ASKS_MAX = 5
_REPORTED_WITHIN = timedelta(days=2)
"""After the begin of an hour: a deleted account does not pay for its plan for longer because a report fails."""


class UnknownPlan(Exception):
    """A customer pays for a plan that the catalogue does not have."""


async def find_running(purchases: Purchases, customer_id: str) -> Sequence[StripeSubscription]:
    """The customer's subscriptions for plans that have not ended, the newest first: there should be one at most.

    Raises StripeUnavailable and StripeRefused.
    """
    return [each for each in await _find(purchases, customer_id) if not each.has_ended]


def plan_of(purchases: Purchases, found: StripeSubscription) -> PlanOffer | None:
    """What the catalogue offers for the price of a subscription, if it still does."""
    plans = purchases.catalogue.plans
    of_price = (each for each in plans.values() if each.stripe_price == found.price_id)
    return next(of_price, None) or plans.get(found.plan or "")


async def follow_subscription(purchases: Purchases, subscription_id: str) -> None:
    """The same as `follow_customer`, for the customer of a subscription."""
    await follow_customer(purchases, (await purchases.stripe.subscription(subscription_id)).customer_id)


async def follow_customer(purchases: Purchases, customer_id: str) -> None:
    """Gives the customer's account the plan that it has at Stripe now, or ends the one that it had there. Of several
    subscriptions that run the newest counts, and the others are cancelled at Stripe; of an account that was deleted all
    are, once its last hours are reported, and the plan of a customer that was deleted ends. A customer of another
    deployment changes nothing.

    Raises StripeUnavailable and StripeRefused, and UnknownPlan.
    """
    async with purchases.sessions.begin() as session:
        of_customer = select(StripeCustomer.account_id).where(StripeCustomer.customer_id == customer_id)
        account_id = await session.scalar(of_customer)
    if account_id is None:
        logger.warning("stripe_account_unknown", account=None, object=customer_id)
        return
    try:
        async with noticed_if_gone(purchases, account_id=account_id, customer_id=customer_id):
            found = await _write_newest(purchases, account_id, customer_id)
    except CustomerGone:
        return
    async with purchases.sessions.begin() as session:
        done = is_deleted(Account.id), ~_is_to_be_billed(Account.id)
        is_done = await session.scalar(select(Account.id).where(Account.id == account_id, *done))
    running = [each for each in found if not each.has_ended]
    for each in running if is_done else running[1:]:
        logger.warning("stripe_subscription_cancelled", account=account_id, object=each.id)
        await purchases.stripe.cancel(each.id)


async def find_facts(session: AsyncSession, *, account_id: str) -> Mapping[str, object]:
    """The account's customer and subscription at Stripe, for an operator: what there is of them."""
    customer = select(StripeCustomer.customer_id).where(StripeCustomer.account_id == account_id)
    facts = {"stripe_customer": await session.scalar(customer)}
    found = await session.scalar(select(Subscription).where(Subscription.account_id == account_id))
    of_subscription = ("stripe_id", "status", "anchor_day", "past_due_since", "ends_at") if found else ()
    facts |= {f"subscription {each}": getattr(found, each) for each in of_subscription}
    return {name: value for name, value in facts.items() if value is not None}


async def stop_overdue(purchases: Purchases) -> None:
    """Stops the plans for which a payment has been missing for longer than the days of grace, by the database's clock.
    A payment resumes them.
    """
    overdue = Subscription.status == "past_due", Subscription.past_due_since < func.now() - purchases.grace
    async with purchases.sessions.begin() as session:
        account_ids = (await session.scalars(select(Subscription.account_id).where(*overdue))).all()
    for account_id in account_ids:
        async with purchases.sessions.begin() as session:
            found = await subscriptions.find_locked(session, account_id=account_id)
            if found is not None and found.status == "past_due":  # else it was paid meanwhile
                await subscriptions.change_status(session, found, "stopped")


def is_deleted(account_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether the account has no user any more."""
    return ~exists().where(is_owner_of(account_id))


def _is_to_be_billed(account_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether hours of the account wait to be reported to Stripe, which bills nothing more once the subscription has
    ended. None is waited for longer than _REPORTED_WITHIN.
    """
    unreported = Charge.billed > 0, Charge.reported_at.is_(None)
    return exists().where(Charge.account_id == account_id, *unreported, Charge.hour > func.now() - _REPORTED_WITHIN)


async def _find(purchases: Purchases, customer_id: str) -> Sequence[StripeSubscription]:
    """The customer's subscriptions for plans, those that were made on Stripe's own pages too."""
    found = await purchases.stripe.subscriptions_of(customer_id)
    of_plans = (each for each in found if each.account_id or each.plan or plan_of(purchases, each))
    return [each for each in of_plans if each.status in _STATUS]


async def _write_newest(purchases: Purchases, account_id: str, customer_id: str) -> Sequence[StripeSubscription]:
    """All subscriptions of the customer, the newest of which is written.

    Of two processes the one that asked Stripe first may write last, and would undo what the other has written. So
    whoever has written asks once more, until what it has written is what there is.
    """
    written: StripeSubscription | None = None
    for _ in range(_ASKS_MAX):
        found = await _find(purchases, customer_id)
        newest = next((each for each in found if not each.has_ended), next(iter(found), None))
        if newest is None or newest == written:
            return found
        async with purchases.sessions.begin() as session:
            await _write(session, purchases, account_id, newest)
        written = newest
    raise StripeUnavailable


async def _write(session: AsyncSession, purchases: Purchases, account_id: str, found: StripeSubscription) -> None:
    before = await subscriptions.find_locked(session, account_id=account_id)
    earlier = before if before is not None and before.stripe_id == found.id else None
    status = _STATUS[found.status]
    if earlier is None and status not in IN_FORCE:
        return  # it never was, or the account has had another plan since
    if earlier is not None and (earlier.status, status) == ("stopped", "past_due"):
        status = "stopped"  # its days of grace are over, until it is paid
    plan = plan_of(purchases, found)
    # Who goes on paying the price of a plan goes on having what was offered for it.
    is_kept = earlier is not None and earlier.plan == (plan.name if plan else found.plan)
    if status in IN_FORCE and plan is None and not is_kept:
        raise UnknownPlan(f"{found.id} is for the price {found.price_id}, which no plan has")
    await subscriptions.apply(
        session,
        account_id=account_id,
        plan=None if is_kept or status not in IN_FORCE else plan,
        anchor_day=anchor_day_of(found.anchor),
        status=status,
        stripe_id=found.id,
    )
    ending = update(Subscription).where(Subscription.account_id == account_id)
    await session.execute(ending.values(ends_at=found.cancel_at))
