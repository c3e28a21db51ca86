"""Buying: the pages at Stripe that an account is led to, and its subscription."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from app.billing.customers import CustomerGone, find_customer, for_customer, noticed_if_gone
from app.billing.plan_purchases import find_running, follow_customer, plan_of
from app.billing.purchases import Purchases
from app.billing.subscriptions import anchor_day_of
from app.catalogue.offers import PlanOffer, TopUps
from app.catalogue.prices import format_amount
from app.core.errors import ApiError, Conflict, Invalid, NotFound
from app.core.logs import logger
from app.core.security import new_id
from app.models import User
from app.payments import Checkout, Invoice, NotSynced, StripeRefused, StripeSubscription


class PaymentsOff(Conflict):
    code, detail = "payments_off", "This deployment takes no payments: credit and plans come from its operator"


class PlanNotSold(Conflict):
    code, detail = "plan_not_sold", "This plan cannot be bought: ask the operator for it"


class NoSubscription(NotFound):
    code, detail = "no_subscription", "The account has no subscription that could be cancelled"


class PlanChanging(Conflict):
    code, detail = "plan_changing", "Another request has just changed the plan; look at it, and try again"


class PaymentMissing(Conflict):
    code = "payment_missing"
    detail = "A payment for the running subscription is missing: pay it, or cancel, in the portal"


class PaymentRefused(ApiError):
    status, title, code = 402, "Payment Required", "payment_refused"
    detail = "The payment was refused: change the payment method in the portal"


@dataclass(frozen=True)
class ReturnUrls:
    """Where Stripe leads customers back to: a page, and the same after a checkout was paid or left."""

    page: str
    opened_at: int
    """Seconds since 1970: the page looks for what has arrived since."""

    @property
    def paid(self) -> str:
        return f"{self.page}?paid_since={self.opened_at}"

    @property
    def left(self) -> str:
        return self.page


async def open_top_up(purchases: Purchases, *, user: User, amount: int, urls: ReturnUrls) -> Checkout:
    """A page on which the account's user pays for credit of `amount` millionths.

    Raises Invalid for an amount that is not offered, StripeUnavailable and StripeRefused.
    """
    top_ups, currency = purchases.catalogue.top_ups, purchases.catalogue.currency or ""
    if top_ups is None or not top_ups.takes(amount, currency=currency):
        raise Invalid([{"pointer": "#/amount", "detail": _offered(top_ups, currency)}])

    async def ask(customer_id: str) -> Checkout:
        return await purchases.stripe.checkout_for_top_up(
            customer_id=customer_id,
            amount=amount,
            currency=currency,
            account_id=user.account_id,
            success_url=urls.paid,
            cancel_url=urls.left,
            idempotency_key=new_id("buy"),
        )

    return await for_customer(purchases, user, ask)


async def choose_plan(
    purchases: Purchases, *, user: User, name: str, urls: ReturnUrls, now: datetime
) -> Checkout | None:
    """A page on which the account's user subscribes to the plan; None where a subscription runs, whose plan it now is.
    Where the bank wants the payment for a dearer plan to be confirmed, nothing changes before that is done on a page.

    Stripe gives nothing back for what is left of a month, since its allowance may be used up already. A dearer plan is
    therefore paid in full at once, and its first month begins; another one holds at once, and is paid from the next
    month on. Dearer is what costs more than the customer pays now, whatever the earlier plan costs by now.

    Raises Invalid for a plan that there is not, PlanNotSold, PlanChanging, PaymentMissing and PaymentRefused, and what
    Stripe's port does.
    """
    plan = purchases.catalogue.plans.get(name)
    if plan is None:
        known = ", ".join(purchases.catalogue.plans)
        detail = f"Must be one of the plans that are offered: {known}" if known else "No plans are offered"
        raise Invalid([{"pointer": "#/plan", "detail": detail}])
    if not plan.is_sold:
        raise PlanNotSold
    choose = partial(_choose, purchases, user.account_id, plan=plan, urls=urls, now=now)
    try:
        return await for_customer(purchases, user, choose)
    except NotSynced as error:
        logger.error("stripe_not_synced", exc_info=True)
        raise PlanNotSold from error


async def end_plan(purchases: Purchases, *, account_id: str) -> StripeSubscription:
    """Has the account's subscription end with the month that is paid.

    Raises NoSubscription, and what Stripe's port does.
    """
    customer_id = await find_customer(purchases, account_id)
    if customer_id is None:
        raise NoSubscription
    try:
        async with noticed_if_gone(purchases, account_id=account_id, customer_id=customer_id):
            running = await find_running(purchases, customer_id)
    except CustomerGone as error:
        raise NoSubscription from error
    if not running:
        raise NoSubscription
    ending = await purchases.stripe.cancel_at_period_end(running[0].id, is_cancelled=True)
    await follow_customer(purchases, customer_id)
    return ending


async def open_portal(purchases: Purchases, *, user: User, return_url: str) -> str:
    """The URL of Stripe's page for the account's invoices and payment methods. Raises what Stripe's port does."""
    return await for_customer(purchases, user, partial(purchases.stripe.portal, return_url=return_url))


async def find_invoices(purchases: Purchases, *, account_id: str) -> Sequence[Invoice]:
    """The invoices of the account's customer, the newest first. Raises what Stripe's port does."""
    customer_id = await find_customer(purchases, account_id)
    if customer_id is None:
        return ()
    try:
        async with noticed_if_gone(purchases, account_id=account_id, customer_id=customer_id):
            return await purchases.stripe.invoices(customer_id)
    except CustomerGone:
        return ()


async def _choose(
    purchases: Purchases, account_id: str, customer_id: str, *, plan: PlanOffer, urls: ReturnUrls, now: datetime
) -> Checkout | None:
    running = await find_running(purchases, customer_id)
    if not running:
        return await _subscribe(purchases, account_id, customer_id, plan, urls=urls, anchor=_anchor(now))
    try:
        await _change(purchases, running[0], plan)
    except StripeRefused as error:
        if not error.needs_confirmation:
            raise
        # That of another subscription can be confirmed on its page. Once it is paid, the one that runs is cancelled.
        return await _subscribe(purchases, account_id, customer_id, plan, urls=urls, anchor=None)
    await follow_customer(purchases, customer_id)
    return None


async def _subscribe(
    purchases: Purchases,
    account_id: str,
    customer_id: str,
    plan: PlanOffer,
    *,
    urls: ReturnUrls,
    anchor: datetime | None,
) -> Checkout:
    return await purchases.stripe.checkout_for_plan(
        customer_id=customer_id,
        account_id=account_id,
        plan=plan.name,
        price_id=plan.stripe_price,
        has_overage=plan.is_postpaid,
        anchor=anchor,
        success_url=urls.paid,
        cancel_url=urls.left,
        idempotency_key=new_id("buy"),
    )


async def _change(purchases: Purchases, running: StripeSubscription, plan: PlanOffer) -> None:
    """Who chooses the plan that the subscription is for goes on paying what it pays, whatever the plan costs by now.

    Raises PaymentMissing, PaymentRefused and PlanChanging, and StripeRefused where a payment needs to be confirmed.
    """
    if running.status not in {"active", "trialing"}:
        raise PaymentMissing
    before = plan_of(purchases, running)
    if before is None or before.name != plan.name:
        await _switch(purchases, running, plan, is_dearer=plan.price > running.price)
    if running.cancel_at is not None:
        await purchases.stripe.cancel_at_period_end(running.id, is_cancelled=False)


async def _switch(purchases: Purchases, running: StripeSubscription, plan: PlanOffer, *, is_dearer: bool) -> None:
    try:
        await purchases.stripe.change_plan(
            running.id,
            plan=plan.name,
            price_id=plan.stripe_price,
            has_overage=plan.is_postpaid,
            is_paid_at_once=is_dearer,
            idempotency_key=new_id("buy"),
        )
    except StripeRefused as error:
        if error.is_missing:  # what the change before has exchanged: of two at once only one is paid
            raise PlanChanging from error
        if error.stripe_status == PaymentRefused.status and not error.needs_confirmation:
            raise PaymentRefused from error
        raise


def _anchor(now: datetime) -> datetime:
    """When the first month ends: at the very time at which the account's next period begins, so that no allowance is
    there before its month is paid.
    """
    next_month = now.replace(day=1) + timedelta(days=32)
    return next_month.replace(day=anchor_day_of(now), hour=0, minute=0, second=0, microsecond=0)


def _offered(top_ups: TopUps | None, currency: str) -> str:
    if top_ups is None:
        return "No amounts are offered"
    amounts = [f"{format_amount(each)} {currency}" for each in top_ups.amounts]
    if top_ups.least is not None and top_ups.most is not None:
        amounts.append(f"any from {format_amount(top_ups.least)} to {format_amount(top_ups.most)} {currency}")
    return f"Must be one of the amounts that are offered: {', '.join(amounts)}"
