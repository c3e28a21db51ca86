"""`sync` makes at Stripe what plans need, once, and says what it changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from app.core.settings import Settings
from app.payments import EVENTS, Change, NotSynced, PlanPrice
from app.payments.minor_units import NotPayable
from app.payments.opened import open_stripe
from app.payments.stripe import Stripe
from tests.payments.orders import new_customer, subscribe
from tests.standins.stripe import StripeStandIn, serving_stripe

URL = "https://here.example/v1/billing/webhooks/stripe"
PLANS = [PlanPrice("starter", "Starter", 10_000_000), PlanPrice("team", "Team", 49_990_000)]
EVERYTHING = {
    *(f"product nanobanana_{each}" for each in ("plan_starter", "plan_team", "overage")),
    *(f"price nanobanana_{each}" for each in ("plan_starter", "plan_team", "overage")),
    *("meter nanobanana_overage", "portal", f"webhook endpoint {URL}"),
}


@asynccontextmanager
async def empty() -> AsyncIterator[tuple[Stripe, StripeStandIn]]:
    async with (
        serving_stripe() as standin,
        open_stripe(Settings(stripe_secret_key=standin.key, stripe_api_url=standin.url)) as stripe,
    ):
        assert stripe is not None
        yield stripe, standin


async def test_a_second_run_changes_nothing_and_a_check_never_does() -> None:
    async with empty() as (stripe, standin):
        checked = await stripe.sync(PLANS, "USD", webhook_url=URL, is_check=True)
        assert {each.thing for each in checked.changes} == EVERYTHING
        assert {each.action for each in checked.changes} == {"create"}
        assert not standin.objects
        made = await stripe.sync(PLANS, "USD", webhook_url=URL)
        assert made.changes == checked.changes
        assert made.webhook_secret == standin.secrets[standin.of("webhook_endpoint")[0]["id"]]
        assert standin.of("webhook_endpoint")[0]["enabled_events"] == list(EVENTS)
        prices = {each["lookup_key"]: each for each in standin.of("price")}
        assert prices["nanobanana_plan_team"]["unit_amount"] == 4999
        assert prices["nanobanana_overage"]["unit_amount_decimal"] == "0.0001"
        assert prices["nanobanana_overage"]["recurring"]["meter"] == standin.of("billing.meter")[0]["id"]

        before = {name: dict(each) for name, each in standin.objects.items()}
        again = await stripe.sync(PLANS, "USD", webhook_url=URL)
        assert (again.changes, again.webhook_secret) == ((), None)
        assert standin.objects == before


async def test_another_monthly_price_holds_for_who_subscribes_from_then_on() -> None:
    """Back at an earlier price within a day, the Idempotency-Key is another one: Stripe would replay the first."""
    async with empty() as (stripe, standin):
        await stripe.sync(PLANS, "USD", webhook_url=None)
        first = standin.pay((await subscribe(stripe, await new_customer(stripe))).id)["subscription"]
        old = (await stripe.subscription(first)).price_id
        for price in (12_000_000, 10_000_000):
            synced = await stripe.sync([PlanPrice("starter", "Starter", price)], "USD", webhook_url=None)
            assert synced.changes == (Change("update", "price nanobanana_plan_starter"),)
            later = standin.pay((await subscribe(stripe, await new_customer(stripe))).id)["subscription"]
            now = (await stripe.subscription(later)).price_id
            assert standin.objects[now]["unit_amount"] == price // 10_000
            assert now != old
        assert (await stripe.subscription(first)).price_id == old


async def test_what_others_have_changed_is_mended() -> None:
    async with empty() as (stripe, standin):
        await stripe.sync(PLANS, "USD", webhook_url=URL)
        standin.objects["nanobanana_plan_team"]["name"] = "Old title"
        [endpoint], [portal] = standin.of("webhook_endpoint"), standin.of("billing_portal.configuration")
        endpoint |= {"enabled_events": ["invoice.paid", "payout.paid"], "status": "disabled"}
        portal["features"]["subscription_cancel"]["mode"] = "immediately"
        mended = await stripe.sync(PLANS, "USD", webhook_url=URL)
        assert {each.thing for each in mended.changes} == {
            *("product nanobanana_plan_team", "portal", f"webhook endpoint {URL}")
        }
        assert {each.action for each in mended.changes} == {"update"}
        assert set(endpoint["enabled_events"]) == {*EVENTS, "payout.paid"}
        assert (await stripe.sync(PLANS, "USD", webhook_url=URL)).changes == ()


@pytest.mark.parametrize(("currency", "unit"), [("JPY", "0.000001"), ("KWD", "0.001")])
async def test_a_unit_of_the_meter_is_a_millionth_of_any_currency(currency: str, unit: str) -> None:
    async with empty() as (stripe, standin):
        await stripe.sync([], currency, webhook_url=None)
        assert standin.of("price")[0]["unit_amount_decimal"] == unit


async def test_nothing_is_made_where_a_price_cannot_be_paid_or_plans_sold_before_it_ran() -> None:
    async with empty() as (stripe, standin):
        with pytest.raises(NotPayable):
            await stripe.sync([PLANS[0], PlanPrice("odd", "Odd", 1)], "USD", webhook_url=None)
        assert not standin.objects
        with pytest.raises(NotSynced, match="billing sync"):
            await subscribe(stripe, await new_customer(stripe))
