"""Stripe's client on the stand-in, over a socket. One stand-in serves all tests of a run: each has customers of its
own, and the clock goes only forward.
"""

from collections.abc import AsyncIterator

import pytest
from app.core.settings import Settings
from app.payments import PlanPrice
from app.payments.http import Transport
from app.payments.opened import open_stripe
from app.payments.stripe import Stripe
from tests.harness import Clock
from tests.standins.stripe import StripeStandIn, serving_stripe

WEBHOOK_SECRETS = "whsec_first", "whsec_second"
STARTER = PlanPrice("starter", "Starter", 10_000_000)


@pytest.fixture(scope="session")
async def standin() -> AsyncIterator[StripeStandIn]:
    async with serving_stripe() as standin:
        yield standin


@pytest.fixture(scope="session")
async def opened(standin: StripeStandIn) -> AsyncIterator[Stripe]:
    """The client, after a `billing sync` of a plan. Its Idempotency-Keys are the same however long the tests take."""
    settings = Settings(
        stripe_secret_key=standin.key, stripe_webhook_secret=",".join(WEBHOOK_SECRETS), stripe_api_url=standin.url
    )
    async with open_stripe(settings, clock=Clock(0.0)) as stripe:
        assert stripe is not None
        await stripe.sync([STARTER], "USD", webhook_url=None)
        yield stripe


@pytest.fixture
def stripe(opened: Stripe, standin: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> Stripe:
    """The client, which repeats without waiting."""

    async def sleep_async(_transport: Transport, _seconds: float) -> None:
        pass

    monkeypatch.setattr(Transport, "sleep_async", sleep_async)
    standin.seen.clear()
    standin.troubles.clear()
    return opened
