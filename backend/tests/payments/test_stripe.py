"""What is bought, paid, given back and reported through Stripe, over a socket, by its own SDK."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import pytest
from app.core.settings import Settings
from app.payments import PlanPrice, StripeRefused
from app.payments.minor_units import NotPayable
from app.payments.opened import open_stripe
from app.payments.stripe import Stripe
from tests.payments.conftest import STARTER
from tests.payments.orders import new_account_id, new_customer, subscribe, top_up
from tests.standins.stripe import StripeStandIn
from tests.standins.stripe_state import DAY


async def test_an_account_has_one_customer_however_often_and_at_once_it_is_asked_for(
    stripe: Stripe, standin: StripeStandIn
) -> None:
    account_id = new_account_id()
    asked = [stripe.find_or_create_customer(account_id, "old@example.com") for _ in range(5)]
    assert len({*await asyncio.gather(*asked)}) == 1
    standin.advance(2 * DAY)  # the key is forgotten, and the search knows the customer
    customer_id = await stripe.find_or_create_customer(account_id, "new@example.com")
    found = [each for each in standin.of("customer") if each["metadata"] == {"account_id": account_id}]
    assert [(each["id"], each["email"]) for each in found] == [(customer_id, "new@example.com")]


async def test_a_top_up_is_paid_when_its_money_is_there_and_keeps_what_it_buys(
    stripe: Stripe, standin: StripeStandIn
) -> None:
    account_id = new_account_id()
    customer_id = await new_customer(stripe, account_id)
    checkout = await top_up(stripe, customer_id, account_id=account_id)
    assert checkout.url.startswith(standin.url)
    assert (await stripe.session(checkout.id)).payment_id is None

    standin.pay(checkout.id, is_settled=False, tax=475)
    waiting = await stripe.session(checkout.id)
    assert waiting.payment_id is not None
    assert not (await stripe.payment_intent(waiting.payment_id)).is_paid

    standin.settle(checkout.id, is_paid=True)
    payment = await stripe.payment_intent(waiting.payment_id)
    assert (payment.is_paid, payment.account_id, payment.top_up, payment.total, payment.currency) == (
        True,
        account_id,
        25_000_000,
        29_750_000,
        "USD",
    )


async def test_taxes_are_left_to_stripe_where_that_is_wanted(stripe: Stripe, standin: StripeStandIn) -> None:
    customer_id = await new_customer(stripe)
    settings = Settings.model_validate(
        {"stripe_secret_key": standin.key, "stripe_api_url": standin.url, "stripe_tax": True}
    )
    async with open_stripe(settings) as with_tax:
        assert with_tax is not None
        pages = [await top_up(with_tax, customer_id), await subscribe(with_tax, customer_id, has_overage=True)]
    without = await top_up(stripe, customer_id)
    taxed = [standin.objects[each.id]["automatic_tax"]["enabled"] for each in (*pages, without)]
    assert taxed == [True, True, False]


async def test_the_same_key_leads_to_the_same_page(stripe: Stripe) -> None:
    customer_id = await new_customer(stripe)
    first = await top_up(stripe, customer_id, key=f"top-up:{customer_id}")
    assert await top_up(stripe, customer_id, key=f"top-up:{customer_id}") == first
    assert await top_up(stripe, customer_id) != first


async def test_nothing_is_sent_for_an_amount_that_the_currency_does_not_have(
    stripe: Stripe, standin: StripeStandIn
) -> None:
    with pytest.raises(NotPayable):
        await top_up(stripe, "cus_1", amount=1_500_000, currency="JPY")
    assert not standin.seen


async def test_refunds_and_disputes_are_known_by_their_payment(stripe: Stripe, standin: StripeStandIn) -> None:
    checkout = await top_up(stripe, await new_customer(stripe))
    payment_id = standin.pay(checkout.id)["payment_intent"]
    parts = [standin.refund(payment_id, units) for units in (100, 1)]
    pending = standin.refund(payment_id, 50, status="pending")
    standin.change_refund(pending["id"], "failed")
    found = await stripe.refunds_of(payment_id)
    assert [(each.amount, each.is_given_back) for each in found] == [
        (500_000, False),
        (10_000, True),
        (1_000_000, True),
    ]
    assert await stripe.refund(parts[0]["id"]) == found[2]

    states = []
    for is_won in (True, False):
        disputed = standin.dispute(payment_id)
        states.append((await stripe.dispute(disputed["id"])).is_withdrawn)
        standin.close_dispute(disputed["id"], is_won=is_won)
        states.append((await stripe.dispute(disputed["id"])).is_withdrawn)
    inquiry = await stripe.dispute(standin.dispute(payment_id, status="warning_needs_response")["id"])
    assert states == [True, False, True, True]
    assert (inquiry.is_withdrawn, inquiry.payment_id, inquiry.amount) == (False, payment_id, 25_000_000)


async def test_a_subscription_goes_through_a_failed_payment_a_recovery_and_its_end(
    stripe: Stripe, standin: StripeStandIn
) -> None:
    customer_id = await new_customer(stripe)
    checkout = await subscribe(stripe, customer_id)
    subscription_id = standin.pay(checkout.id)["subscription"]
    session = await stripe.session(checkout.id)
    assert (session.payment_id, session.subscription_id) == (None, subscription_id)
    new = await stripe.subscription(subscription_id)
    assert (new.status, new.plan, new.account_id, new.customer_id) == ("active", "starter", "acc_1", customer_id)
    assert new.anchor == new.period_start
    assert timedelta(days=28) <= new.period_end - new.period_start <= timedelta(days=31)

    standin.decline_card(customer_id)
    standin.advance((new.period_end - new.period_start).total_seconds() + 60)
    failed = await stripe.subscription(subscription_id)
    assert (failed.status, failed.period_start) == ("past_due", new.period_end)
    standin.accept_card(customer_id)
    assert (await stripe.subscription(subscription_id)).status == "active"

    ending = await stripe.cancel_at_period_end(subscription_id, is_cancelled=True)
    assert (ending.status, ending.cancel_at) == ("active", failed.period_end)
    assert (await stripe.cancel_at_period_end(subscription_id, is_cancelled=False)).cancel_at is None
    await stripe.cancel_at_period_end(subscription_id, is_cancelled=True)
    standin.advance(32 * DAY)
    assert (await stripe.subscription(subscription_id)).has_ended


async def test_overage_is_billed_to_the_millionth_and_rounded_once_on_the_invoice(
    stripe: Stripe, standin: StripeStandIn
) -> None:
    customer_id = await new_customer(stripe)
    subscription_id = standin.pay((await subscribe(stripe, customer_id, has_overage=True)).id)["subscription"]
    begin = datetime.fromtimestamp(standin.now() // 3600 * 3600, UTC)
    for index, value in enumerate((1_000_001, 2_000_002, 4_999)):
        at = begin + timedelta(hours=index)  # the first is before the subscription, which began within that hour
        standin.advance(3600)
        for _ in range(2):  # again: the same identifier counts once, and is no error
            await stripe.send_meter_event(
                customer_id=customer_id, identifier=f"{customer_id}:{index}", value=value, at=at
            )
    assert [await stripe.meter_total(customer_id, begin + timedelta(hours=index)) for index in range(4)] == [
        1_000_001,
        2_000_002,
        4_999,
        0,
    ]
    standin.advance(31 * DAY)
    last, first = await stripe.invoices(customer_id)
    assert (first.total, first.paid, first.status) == (10_000_000, 10_000_000, "paid")
    assert last.total == 13_010_000  # 3.005002 of overage: 301 cents, but for the 2 millionths
    assert await stripe.invoice(last.id) == last
    assert last.subscription_id == subscription_id
    assert last.url is not None


async def test_a_plan_is_exchanged_with_its_overage(stripe: Stripe, standin: StripeStandIn) -> None:
    await stripe.sync([STARTER, PlanPrice("team", "Team", 50_000_000)], "USD", webhook_url=None)
    subscription_id = standin.pay((await subscribe(stripe, await new_customer(stripe))).id)["subscription"]
    for key in ("first", "again"):
        changed = await stripe.change_plan(
            subscription_id,
            plan="team",
            has_overage=True,
            is_paid_at_once=True,
            idempotency_key=f"{subscription_id}:{key}",
        )
        assert changed.plan == "team"
    customer_id = standin.objects[subscription_id]["customer"]
    assert [each["amount_paid"] for each in standin.of("invoice", customer=customer_id)] == [5000, 1000]
    rows = standin.objects[subscription_id]["items"]["data"]
    assert sorted(each["price"]["recurring"]["usage_type"] for each in rows) == ["licensed", "metered"]


async def test_a_portal_is_the_one_that_sync_has_made(stripe: Stripe, standin: StripeStandIn) -> None:
    url = await stripe.portal(await new_customer(stripe), "https://here.example/billing")
    session = standin.objects[url.rpartition("/")[2]]
    [configuration] = standin.of("billing_portal.configuration")
    assert session["configuration"] == configuration["id"]
    assert session["return_url"] == "https://here.example/billing"


async def test_what_does_not_exist_is_refused_as_missing(stripe: Stripe) -> None:
    calls = [
        *(each("none_1") for each in (stripe.session, stripe.subscription, stripe.payment_intent, stripe.refund)),
        *(each("none_1") for each in (stripe.dispute, stripe.invoice)),
    ]
    for refusal in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(refusal, StripeRefused)
        assert refusal.is_missing


async def test_what_creates_has_a_key_and_every_call_its_version(stripe: Stripe, standin: StripeStandIn) -> None:
    customer_id = await new_customer(stripe)
    standin.pay((await subscribe(stripe, customer_id, has_overage=True)).id)
    at = datetime.fromtimestamp(standin.now() - 3600, UTC)
    await stripe.send_meter_event(customer_id=customer_id, identifier=f"{customer_id}:x", value=1, at=at)
    keys = [each.headers["idempotency-key"] for each in standin.seen if each.path == "/v1/billing/meter_events"]
    last_second = int(at.timestamp()) // 3600 * 3600 + 3599
    assert keys == [f"meter:{customer_id}:x:1:{last_second}:0"]
    [created] = [each for each in standin.seen if each.path == "/v1/customers"]
    assert created.headers["idempotency-key"].startswith("customer:acc_")
    assert [*parse_qs(created.body.decode())] == ["metadata[account_id]"]
    assert {each.headers["stripe-version"] for each in standin.seen} == {"2026-10-28.endive"}
