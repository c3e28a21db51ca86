"""Hours are reported to Stripe by its SDK, and compared with what its meter has counted."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from functools import partial

import pytest
from app.billing.reporter import Reporter
from app.cli.billing_reports import reconcile
from app.core.db import connect_for_writing
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.payments import PlanPrice
from app.payments.opened import open_stripe
from click.testing import CliRunner, Result
from tests.billing.postpaid import Postpaid
from tests.standins.stripe import StripeStandIn, serving_stripe
from tests.version_before.history import connected


@pytest.fixture
async def standin() -> AsyncIterator[StripeStandIn]:
    async with serving_stripe() as standin:
        yield standin


async def test_what_stripe_has_counted_is_compared_hour_by_hour(new_database_url: str, standin: StripeStandIn) -> None:
    settings = Settings(stripe_secret_key=standin.key, stripe_api_url=standin.url)
    environment = {
        "DATABASE_URL": new_database_url,
        "STRIPE_SECRET_KEY": standin.key,
        "STRIPE_API_URL": standin.url,
    }

    async def compared() -> Result:
        return await asyncio.to_thread(CliRunner().invoke, reconcile, ["--stripe"], env=environment)

    async with open_stripe(settings) as stripe, connected(new_database_url) as database:
        assert stripe is not None
        await stripe.sync([PlanPrice("starter", "Starter", 10_000_000)], "USD", webhook_url=None)
        account = await Postpaid.open(database, has_customer=False)
        customer = await stripe.find_or_create_customer(account.id, "ada@example.com")
        await database.execute("insert into stripe_customers values ($1, $2)", account.id, customer)
        reporter = Reporter(partial(connect_for_writing, new_database_url), stripe, Metrics().billing)
        hour = await account.charge(database, 1_250_000, hours_ago=3)
        standin.troubles.append(("POST /v1/billing/meter_events", "lose"))
        for _ in range(2):
            await reporter.report()
        assert await stripe.meter_total(customer, hour) == 1_250_000
        assert await database.fetchval("select reported_at is not null from charges")
        await database.execute("update charges set reported_at = reported_at - interval '2 hours'")
        before = (await compared()).output
        await stripe.send_meter_event(customer_id=customer, identifier="by hand", value=250_000, at=hour)
        done = await compared()
    difference = f"{hour.astimezone(UTC):%Y-%m-%d} {account.id}: billed at {hour.astimezone(UTC):%H}:00 1.25, Stripe"
    assert difference not in before
    assert f"{difference} 1.5" in done.output.splitlines()
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("ends", "dated"), [(None, 3599), (7200, 3599), (3600, 3599), (1200, 1199), (0, 0), (-86400, 0)]
)
async def test_an_hour_is_dated_within_itself_and_before_the_end_of_the_subscription(
    new_database_url: str, standin: StripeStandIn, ends: int | None, dated: int
) -> None:
    settings = Settings(stripe_secret_key=standin.key, stripe_api_url=standin.url)
    async with open_stripe(settings) as stripe, connected(new_database_url) as database:
        assert stripe is not None
        await stripe.sync([], "USD", webhook_url=None)
        account = await Postpaid.open(database, has_customer=False)
        customer = await stripe.find_or_create_customer(account.id, "ada@example.com")
        await database.execute("insert into stripe_customers values ($1, $2)", account.id, customer)
        hour = await account.charge(database, 7)
        plan = """
            insert into subscriptions (account_id, plan, status, anchor_day, terms, ends_at)
            values ($1, 'starter', 'active', 1, '{}', $2)
        """
        await database.execute(plan, account.id, None if ends is None else hour + timedelta(seconds=ends))
        await Reporter(partial(connect_for_writing, new_database_url), stripe, Metrics().billing).report()
    [event] = standin.meter_events
    assert event["timestamp"] - hour.timestamp() == dated


def test_hours_are_not_called_equal_without_a_key() -> None:
    done = CliRunner().invoke(reconcile, ["--stripe"], env={"STRIPE_SECRET_KEY": ""})
    assert (done.exit_code, done.stdout) == (1, "")
    assert "STRIPE_SECRET_KEY is not set." in done.stderr
