"""Buying: top-ups, plans and their changes, payments that fail, and the end of a subscription."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from app.billing.plan_purchases import find_facts
from app.features.auth.deletion import delete_account
from app.payments import WEBHOOK_PATH
from tests.conftest import Start
from tests.features.billing.shop import Buyer, Shop
from tests.harness import JSON, sign_up, until_none_is_held
from tests.standins.stripe_billing import bill, end

_STARTER, _PRO, _NONE = ("starter", "15", "active"), ("pro", "100", "active"), (None, "0")


@pytest.mark.parametrize(
    ("amount", "is_offered"),
    [("10", True), ("20", True), ("499.99", True), ("20.001", False), ("500.01", False), ("11", False)],
)
async def test_only_amounts_that_are_offered_can_be_bought(buyer: Buyer, amount: str, is_offered: bool) -> None:
    answer = await buyer.call("POST", "/top-ups", amount=amount)
    assert answer.status_code == (201 if is_offered else 422)
    if is_offered:
        session = buyer.shop.stripe.objects[answer.json()["url"].rsplit("/", 1)[-1]]
        assert session["success_url"].startswith("https://pictures.test/billing?paid_since=1")
        assert session["cancel_url"] == "https://pictures.test/billing"
    else:
        [error] = answer.json()["errors"]
        assert error["pointer"] == "#/amount"
        assert error["detail"].endswith("10 USD, any from 20 to 500 USD")


async def test_a_plan_without_a_price_is_not_sold_and_makes_no_customer(buyer: Buyer) -> None:
    answer = await buyer.call("POST", "/subscription", plan="given")
    assert (answer.status_code, answer.json()["code"]) == (409, "plan_not_sold")
    async with buyer.shop.sweeper.purchases.sessions.begin() as session:
        assert await find_facts(session, account_id=buyer.account.account_id) == {}


async def test_a_plan_holds_once_it_is_paid_and_its_months_begin_with_those_of_stripe(buyer: Buyer) -> None:
    subscription = await buyer.subscribe("starter")
    assert await buyer.plan() == _STARTER
    begins = datetime.fromtimestamp(subscription["billing_cycle_anchor"], UTC)
    async with buyer.shop.sweeper.purchases.sessions.begin() as session:
        facts = await find_facts(session, account_id=buyer.account.account_id)
    assert facts == {
        "stripe_customer": subscription["customer"],
        "subscription stripe_id": subscription["id"],
        "subscription status": "active",
        "subscription anchor_day": begins.day,
    }
    assert (await buyer.billing())["period_end"] == begins.isoformat().replace("+00:00", "Z")


def _bill(shop: Shop, subscription: JSON) -> None:
    """A month has ended."""
    bill(shop.stripe, subscription, [("a month", 1000)], reason="subscription_cycle", period=(0, 1))


async def test_a_missing_payment_is_waited_for_then_the_plan_stops_and_a_payment_resumes_it(
    shop: Shop, buyer: Buyer
) -> None:
    subscription = await buyer.subscribe("starter")
    shop.stripe.decline_card(subscription["customer"])
    _bill(shop, subscription)
    await shop.deliver(times=2)
    await shop.sweep()
    assert await buyer.plan() == ("starter", "15", "past_due")
    changed = await buyer.call("POST", "/subscription", plan="pro")
    assert (changed.status_code, changed.json()["code"]) == (409, "payment_missing")
    later = "update subscriptions set past_due_since = past_due_since - interval '7 days' where account_id = $1"
    await shop.database.execute(later, buyer.account.account_id)
    await shop.sweep()
    assert await buyer.plan() == (*_NONE, "stopped")
    _bill(shop, subscription)
    await shop.deliver()
    assert await buyer.plan() == (*_NONE, "stopped"), "a second failure gives no more days"
    shop.stripe.accept_card(subscription["customer"])
    await shop.deliver()
    assert await buyer.plan() == _STARTER


async def test_days_of_grace_begin_anew_only_after_a_payment(shop: Shop, buyer: Buyer) -> None:
    subscription = await buyer.subscribe("starter")
    since = "select past_due_since from subscriptions where account_id = $1"
    shop.stripe.decline_card(subscription["customer"])
    seen = []
    for is_paid in (False, False, True):
        if is_paid:
            shop.stripe.accept_card(subscription["customer"])
        else:
            _bill(shop, subscription)
        await shop.deliver()
        seen.append(await shop.database.fetchval(since, buyer.account.account_id))
    assert seen == [seen[0], seen[0], None]


async def test_a_dearer_plan_is_paid_in_full_before_it_holds_and_another_one_holds_at_once(
    shop: Shop, buyer: Buyer
) -> None:
    subscription = await buyer.subscribe("starter")
    shop.stripe.decline_card(subscription["customer"])
    refused = await buyer.call("POST", "/subscription", plan="pro")
    assert (refused.status_code, refused.json()["code"]) == (402, "payment_refused")
    assert await buyer.plan() == _STARTER
    shop.stripe.accept_card(subscription["customer"])
    for plan, expected, paid in (("pro", _PRO, 5000), ("starter", _STARTER, None), ("pro", _PRO, 5000)):
        before = len(shop.stripe.of("invoice", customer=subscription["customer"]))
        answers = await asyncio.gather(*(buyer.call("POST", "/subscription", plan=plan) for _ in range(2)))
        assert {each.status_code for each in answers} in ({201}, {201, 409})
        assert {"plan": plan, "url": None} in [each.json() for each in answers]
        assert await buyer.plan() == expected
        invoices = shop.stripe.of("invoice", customer=subscription["customer"])
        made = invoices[: len(invoices) - before]
        assert [each["amount_paid"] for each in made] == ([paid] if paid else [])
    await shop.deliver()
    assert await buyer.plan() == _PRO


@pytest.mark.parametrize(
    ("plan", "pays_now", "chosen", "is_paid_at_once"), [("pro", 500, "starter", True), ("starter", 6000, "pro", False)]
)
async def test_a_plan_is_dearer_where_it_costs_more_than_what_the_customer_pays_now(
    shop: Shop, buyer: Buyer, plan: str, pays_now: int, chosen: str, *, is_paid_at_once: bool
) -> None:
    subscription = await buyer.subscribe(plan)
    [item] = subscription["items"]["data"]
    item["price"] = item["price"] | {
        "id": "price_earlier",
        "unit_amount": pays_now,
        "unit_amount_decimal": str(pays_now),
    }
    [first] = shop.stripe.of("invoice", customer=subscription["customer"])
    assert (await buyer.call("POST", "/subscription", plan=chosen)).status_code == 201
    assert (await buyer.plan())[0] == chosen
    last, *_ = shop.stripe.of("invoice", customer=subscription["customer"])
    assert (last is not first) is is_paid_at_once


async def test_a_dearer_plan_whose_payment_has_to_be_confirmed_holds_once_it_is_on_the_page_that_the_answer_names(
    shop: Shop, buyer: Buyer
) -> None:
    older = await buyer.subscribe("starter")
    shop.stripe.confirming.add(older["customer"])
    session = shop.stripe.objects[await buyer.checkout("/subscription", plan="pro")]
    await shop.deliver()
    assert (await buyer.plan(), older["status"]) == (_STARTER, "active")
    newer = shop.stripe.objects[shop.stripe.pay(session["id"])["subscription"]]
    await shop.deliver(times=2)
    assert (await buyer.plan(), older["status"], newer["status"]) == (_PRO, "canceled", "active")
    paid = [each["amount_paid"] for each in shop.stripe.of("invoice", customer=older["customer"])]
    assert paid[0] == 5000, "a whole month"


async def test_what_a_plan_has_left_to_be_billed_is_billed_after_a_change_to_one_that_pays_in_advance(
    own_shop: Shop,
) -> None:
    stripe, buyer = own_shop.stripe, await own_shop.buyer()
    subscription = await buyer.subscribe("team")
    stripe.advance(2 * 3600)
    await own_shop.sweeper.purchases.stripe.send_meter_event(
        customer_id=subscription["customer"],
        identifier="hour",
        value=7_000_000,
        at=datetime.fromtimestamp(stripe.now() - 3600, UTC),
    )
    assert (await buyer.call("POST", "/subscription", plan="starter")).status_code == 201
    assert ((await buyer.billing())["mode"], await buyer.plan()) == ("prepaid", _STARTER)
    stripe.advance(subscription["items"]["data"][0]["current_period_end"] - stripe.now())
    last, *_ = stripe.of("invoice", customer=subscription["customer"])
    assert last["amount_paid"] == 700 + 1000


async def test_a_cancelled_plan_goes_on_until_its_month_ends_unless_it_is_chosen_again(
    shop: Shop, buyer: Buyer
) -> None:
    assert (await buyer.call("DELETE", "/subscription")).json()["code"] == "no_subscription"
    subscription = await buyer.subscribe("starter")
    ends_at = "select ends_at from subscriptions where account_id = $1"
    for is_ending in (True, False, True):
        if is_ending:
            answer = await buyer.call("DELETE", "/subscription")
            assert (answer.status_code, answer.json()["plan"]) == (200, "starter")
        else:
            answer = await buyer.call("POST", "/subscription", plan="starter")
            assert answer.json() == {"plan": "starter", "url": None}
        assert (await shop.database.fetchval(ends_at, buyer.account.account_id) is not None) is is_ending
        assert await buyer.plan() == _STARTER
    end(shop.stripe, subscription)
    await shop.deliver()
    assert await buyer.plan() == (*_NONE, "cancelled")


async def test_of_two_subscriptions_the_newer_counts_and_the_older_is_cancelled(shop: Shop, buyer: Buyer) -> None:
    sessions = [await buyer.checkout("/subscription", plan=plan) for plan in ("pro", "starter")]
    older, newer = (shop.stripe.pay(each)["subscription"] for each in sessions)
    shop.stripe.objects[newer]["metadata"] = {}  # as if it had been made on Stripe's own pages
    events = [*shop.stripe.events]
    await shop.deliver(*reversed(events))
    await shop.deliver()
    assert [shop.stripe.objects[each]["status"] for each in (older, newer)] == ["canceled", "active"]
    assert await buyer.plan() == _STARTER


async def test_a_deleted_account_pays_for_no_subscription(shop: Shop, buyer: Buyer) -> None:
    subscription = await buyer.subscribe("starter")
    async with shop.sweeper.purchases.sessions.begin() as session:
        await delete_account(session, owner=buyer.account.email)
    await shop.sweep()
    assert subscription["status"] == "canceled"


async def test_the_subscription_of_a_deleted_account_ends_once_its_last_hours_are_reported_and_waits_for_no_old_ones(
    shop: Shop, buyer: Buyer
) -> None:
    subscription = await buyer.subscribe("starter")
    charge = """
        insert into charges (account_id, hour, amount, from_allowance, from_credit, billed)
        values ($1, date_trunc('hour', now(), 'UTC') - $2 * interval '1 hour', 5, 0, 0, 5)
    """
    for hours_ago in (0, 49):
        await shop.database.execute(charge, buyer.account.account_id, hours_ago)
    async with shop.sweeper.purchases.sessions.begin() as session:
        await delete_account(session, owner=buyer.account.email)
    await shop.sweep()
    assert subscription["status"] == "active"
    reported = "update charges set reported_at = now() where account_id = $1 and hour > now() - interval '1 day'"
    await shop.database.execute(reported, buyer.account.account_id)
    await shop.sweep()
    assert subscription["status"] == "canceled"


async def test_an_answer_of_stripes_that_comes_after_a_newer_one_does_not_stay(shop: Shop, buyer: Buyer) -> None:
    subscription = await buyer.subscribe("starter")
    shop.stripe.decline_card(subscription["customer"])
    _bill(shop, subscription)
    *_, late = shop.stripe.events
    async with shop.stripe.holding("/v1/subscriptions") as asked:
        sending = asyncio.create_task(shop.send(late))
        await asked.wait()
        shop.stripe.accept_card(subscription["customer"])
        await shop.deliver(*shop.stripe.events[-2:])
        assert await buyer.plan() == _STARTER
    assert (await sending).status_code == 200
    assert await buyer.plan() == _STARTER


async def test_the_portal_and_the_invoices_are_those_of_the_account(shop: Shop, buyer: Buyer) -> None:
    assert (await buyer.call("GET", "/invoices")).json() == []
    subscription = await buyer.subscribe("starter")
    [invoice] = (await buyer.call("GET", "/invoices")).json()
    stored = shop.stripe.objects[subscription["latest_invoice"]]
    assert (invoice["status"], invoice["url"]) == ("paid", stored["hosted_invoice_url"])
    answer = await buyer.call("POST", "/portal")
    portal = shop.stripe.objects[answer.json()["url"].rsplit("/", 1)[-1]]
    assert portal["customer"] == subscription["customer"]
    assert portal["return_url"] == "https://pictures.test/billing"
    assert (await (await shop.buyer()).call("GET", "/invoices")).json() == []


@pytest.mark.parametrize(
    ("call", "body", "expected", "has_new"),
    [
        ("POST /top-ups", {"amount": "10"}, (201, None), True),
        ("POST /subscription", {"plan": "pro"}, (201, None), True),
        ("POST /portal", {}, (201, None), True),
        ("GET /invoices", {}, (200, None), False),
        ("DELETE /subscription", {}, (404, "no_subscription"), False),
        ("", {}, (200, None), False),  # an event
    ],
)
async def test_the_plan_of_a_customer_that_was_deleted_at_stripe_ends_and_what_needs_one_makes_a_new_one(
    buyer: Buyer, call: str, body: JSON, expected: tuple[int, str | None], *, has_new: bool
) -> None:
    shop = buyer.shop
    gone = (await buyer.subscribe("starter"))["customer"]
    shop.stripe.delete_customer(gone)
    answer = await (buyer.call(*call.split(), **body) if call else shop.send(shop.stripe.events[0]))
    code = answer.json().get("code") if answer.is_error else None
    assert ((answer.status_code, code), await buyer.plan()) == (expected, (*_NONE, "cancelled"))
    customers = await shop.database.fetch(
        "select customer_id from stripe_customers where account_id = $1", buyer.account.account_id
    )
    assert [row["customer_id"] != gone for row in customers] == [True] * has_new
    await shop.deliver()
    assert (await buyer.subscribe("pro"))["customer"] != gone
    assert await buyer.plan() == _PRO


async def test_a_key_of_another_account_of_stripes_takes_no_plan_and_no_customer_away(buyer: Buyer) -> None:
    shop, subscription = buyer.shop, await buyer.subscribe("starter")
    _bill(shop, subscription)
    event, customer = shop.stripe.events[-1], shop.stripe.objects.pop(subscription["customer"])
    for call, body in (("POST /top-ups", {"amount": "10"}), ("GET /invoices", {}), ("POST /portal", {})):
        answer = await buyer.call(*call.split(), **body)
        assert (answer.status_code, answer.json()["code"]) == (502, "payments_failed")
    assert (await shop.send(event)).status_code == 502, "so Stripe sends it again"
    shop.stripe.objects[customer["id"]] = customer
    assert (await shop.send(event)).status_code == 200
    assert await buyer.plan() == _STARTER


async def test_no_connection_of_the_database_is_held_while_stripe_is_asked(shop: Shop, buyer: Buyer) -> None:
    await buyer.subscribe("starter")
    payment = await buyer.top_up()
    *_, completed = shop.stripe.events
    shop.stripe.refund(payment)
    *_, refunded = shop.stripe.events
    calls: list[tuple[str, Coroutine[Any, Any, httpx2.Response]]] = [
        ("/v1/checkout/sessions", buyer.call("POST", "/top-ups", amount="10")),
        ("/v1/subscriptions", buyer.call("POST", "/subscription", plan="pro")),
        ("/v1/subscriptions", buyer.call("DELETE", "/subscription")),
        ("/v1/billing_portal/sessions", buyer.call("POST", "/portal")),
        ("/v1/invoices", buyer.call("GET", "/invoices")),
        (f"/v1/payment_intents/{payment}", shop.send(completed)),
        ("/v1/refunds", shop.send(refunded)),
    ]
    for path, call in calls:
        async with shop.stripe.holding(path) as asked:
            calling = asyncio.create_task(call)
            await asked.wait()
            await until_none_is_held(shop.database)
        assert (await calling).is_success


async def test_where_no_payments_are_taken_every_route_says_so_within_its_limit(start: Start) -> None:
    client = await start(checkout_limit_per_account="5/day")
    account = await sign_up(client)
    for method, path, body in (
        ("POST", "top-ups", {"amount": "10"}),
        ("POST", "subscription", {"plan": "pro"}),
        ("DELETE", "subscription", None),
        ("POST", "portal", None),
        ("GET", "invoices", None),
    ):
        answer = await client.request(method, f"/v1/billing/{path}", json=body, headers=account.headers)
        assert (answer.status_code, answer.json()["code"]) == (409, "payments_off")
    answer = await client.post(WEBHOOK_PATH, content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (409, "payments_off")
    refused = await client.get("/v1/billing/invoices", headers=account.headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limit_exceeded")
