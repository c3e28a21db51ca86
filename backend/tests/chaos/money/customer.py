"""A customer through a month: what the customer, the operator and Stripe do, and what follows from it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, patch

from app.assembly import Externals
from app.billing.expiry import GrantExpiry
from app.billing.reporter import Reporter
from app.core.db import connect_for_writing
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.payments.http import Transport
from pydantic import SecretStr
from tests.chaos.money.moved_clock import MovedClock
from tests.console.browser import Browser, new_browser
from tests.features.billing.shop import Buyer, SlowStripe, open_shop
from tests.harness import PASSWORD, Key, generate, sign_up
from tests.standins.openai import MODEL, OpenAIStandIn, failed
from tests.standins.wire import serving
from tests.test_cli import nanobanana_in_here
from tests.version_before.history import connected

_PROVIDER_KEY = "sk-provider"
_MODELS = f"""
currency = "USD"
[top_ups]
amounts = ["10"]
[plans.starter]
price = "10"
allowance = "0.15"
[plans.studio]
price = "50"
allowance = "0.20"
pays = "afterwards"
[models.banana]
price = "0.05"
[[models.banana.routes]]
provider = "openai"
base_url = "{{url}}/v1"
model = "{MODEL}"
key = "OPENAI_API_KEY"
cost = "0.02"
"""
_TRIAL = "0.10"
_NEVER = 1e6
_METER_EVENTS = "/v1/billing/meter_events"


@dataclass
class Customer:
    """Somebody with an account, a live key and a card."""

    buyer: Buyer
    browser: Browser
    key: Key
    clock: MovedClock
    provider: OpenAIStandIn
    folder: Path
    environment: dict[str, str]
    drawn: list[str] = field(default_factory=list)
    """The ids of the images that were delivered, the oldest first."""
    payments: list[str] = field(default_factory=list)
    """The ids of the top-ups' payments at Stripe."""
    disputes: list[str] = field(default_factory=list)
    queued: str = ""
    """The id of an asynchronous generation that waits."""

    @property
    def stripe(self) -> SlowStripe:
        return self.buyer.shop.stripe

    @property
    def email(self) -> str:
        return self.buyer.account.email

    @property
    def account_id(self) -> str:
        return self.buyer.account.account_id

    @property
    def customer_id(self) -> str | None:
        """At Stripe; None before anything was bought."""
        return next((each["id"] for each in self.stripe.of("customer")), None)

    async def wait_until(self, at: datetime) -> None:
        """Time passes. What Stripe has sent meanwhile has arrived, three times. The login token has expired, so the
        customer logs in again.
        """
        await self.clock.move_to(self.buyer.shop.database, at)
        await self.buyer.shop.deliver(times=3)
        client, credentials = self.buyer.shop.client, {"email": self.email, "password": PASSWORD}
        answer = await client.post("/v1/auth/login", json=credentials)
        self.buyer = replace(self.buyer, account=replace(self.buyer.account, token=answer.json()["access_token"]))

    async def draw(self, images: int = 1) -> None:
        for _ in range(images):
            answer = await generate(self.buyer.shop.client, self.key)
            assert answer.status_code == 200, answer.text
            self.drawn.append(answer.json()["id"])

    async def be_refused(self) -> None:
        answer = await generate(self.buyer.shop.client, self.key)
        assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_credit")

    async def draw_in_vain(self) -> None:
        """The provider refuses the prompt."""
        self.provider.faults.append(failed(400, "moderation_blocked"))
        assert (await generate(self.buyer.shop.client, self.key)).status_code == 400

    async def queue(self) -> None:
        """No worker runs."""
        answer = await generate(self.buyer.shop.client, self.key, **{"async": True})
        assert answer.status_code == 202, answer.text
        self.queued = answer.json()["id"]

    async def cancel_queued(self) -> None:
        path = f"/v1/generations/{self.queued}/cancel"
        assert (await self.buyer.shop.client.post(path, headers=self.key.headers)).json()["status"] == "cancelled"

    async def top_up(self) -> None:
        """Ten dollars and their taxes."""
        self.payments.append(await self.buyer.top_up(tax=190))
        await self.buyer.shop.deliver(times=10)

    async def choose(self, plan: str) -> None:
        """A new plan is paid at a checkout, a change by the card that is there."""
        answer = await self.buyer.call("POST", "/subscription", plan=plan)
        assert answer.status_code == 201, answer.text
        if answer.json()["url"] is not None:
            self.stripe.pay(answer.json()["url"].rpartition("/")[2])
        await self.buyer.shop.deliver(times=3)

    async def cancel(self) -> None:
        assert (await self.buyer.call("DELETE", "/subscription")).status_code == 200
        await self.buyer.shop.deliver(times=3)

    async def lose_card(self) -> None:
        assert self.customer_id
        self.stripe.decline_card(self.customer_id)

    async def have_new_card(self) -> None:
        assert self.customer_id
        self.stripe.accept_card(self.customer_id)
        await self.buyer.shop.deliver(times=3)

    async def be_refunded(self, payment: int) -> None:
        """By the operator, on Stripe's own pages."""
        self.stripe.refund(self.payments[payment])
        await self.buyer.shop.deliver(times=10)

    async def dispute(self, payment: int) -> None:
        self.disputes.append(self.stripe.dispute(self.payments[payment])["id"])
        await self.buyer.shop.deliver(times=10)

    async def win_dispute(self) -> None:
        """The customer takes the dispute back."""
        self.stripe.close_dispute(self.disputes[-1], is_won=True)
        await self.buyer.shop.deliver(times=10)

    async def command(self, *arguments: str) -> str:
        """What `nanobanana billing` prints, which succeeds."""
        run = partial(nanobanana_in_here, self.folder, "billing", *arguments, **self.environment)
        done = await asyncio.to_thread(run)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def sweep_and_lose_an_answer(self) -> None:
        """Stripe counts an event, and every answer to it is lost until the next turn."""
        with (
            patch.object(self.stripe, "trouble", lambda seen: "lose" if seen.path == _METER_EVENTS else None),
            patch.object(Transport, "sleep_async", AsyncMock()),
        ):
            await self.sweep()
        await self.sweep()

    async def sweep(self) -> None:
        """One turn of each of the server's tasks about money, which it does every minute or five."""
        shop, connect = self.buyer.shop, partial(connect_for_writing, self.environment["DATABASE_URL"])
        await GrantExpiry(shop.sweeper.purchases.sessions).sweep()
        await shop.sweep()
        await Reporter(connect, shop.sweeper.purchases.stripe, Metrics().billing).report()


@asynccontextmanager
async def open_customer(settings: Settings, database_url: str, folder: Path, at: datetime) -> AsyncIterator[Customer]:
    """A new account at a deployment that takes payments, on this empty database, where it is `at` this time. A provider
    draws its images, and each costs the operator two cents.
    """
    stripe, provider = SlowStripe(), OpenAIStandIn(api_key=_PROVIDER_KEY)
    clock = MovedClock(stripe)
    async with connected(database_url) as database:
        await clock.begin(database, at)
    changes: dict[str, Any] = {"trial_credit": _TRIAL, "openai_api_key": SecretStr(_PROVIDER_KEY)}
    changes["public_url"] = "http://console.test"  # whose cookies are not Secure
    opened = partial(open_shop, settings, database_url, folder, stripe=stripe, externals=Externals(clock=clock))
    changes["session_days"] = 90
    # The ledger's sweep reads the database's clock: between the moves of both it would be another than the server's.
    with patch("app.generations.ledger._SWEEP_SECONDS", _NEVER):
        async with serving(provider.answer) as url, opened(models=_MODELS.format(url=url), **changes) as shop:
            account = await sign_up(shop.client)
            environment = {
                "DATABASE_URL": database_url,
                "MODELS_FILE": str(folder / "models.toml"),
                "BILLING": "on",
                "STRIPE_SECRET_KEY": stripe.key,
                "STRIPE_API_URL": stripe.url,
            }
            async with new_browser(shop.client) as browser:
                await browser.log_in(account.email)
                key = await account.create_key()
                yield Customer(Buyer(shop, account), browser, key, clock, provider, folder, environment)
