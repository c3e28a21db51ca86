"""An application that takes payments from a stand-in for Stripe, its accounts, and what Stripe sends to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
from app.assembly import Externals
from app.billing.healing import PurchaseSweeper
from app.billing.purchases import Purchases
from app.catalogue.configured import catalogue_of
from app.core.db import connect_for_writing, create_engine
from app.core.metrics.billing import BillingMetrics
from app.core.metrics.families import Families
from app.core.settings import Settings
from app.payments import WEBHOOK_PATH, PlanPrice
from app.payments.opened import open_stripe
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.harness import JSON, Account, looks, running, sign_up
from tests.standins.stripe import StripeStandIn
from tests.standins.wire import Reply, Seen, serving

SECRETS = ("whsec_first", "whsec_second")
MODELS = """
currency = "USD"
[top_ups]
amounts = ["10"]
least = "20"
most = "500"
[plans.starter]
price = "10"
allowance = "15"
[plans.pro]
price = "50"
allowance = "100"
[plans.given]
allowance = "1"
[models.banana]
price = "0.05"
routes = [{ provider = "stub" }]
"""


class SlowStripe(StripeStandIn):
    """A stand-in whose answers a test can hold back."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[tuple[str, asyncio.Event, asyncio.Event]] = []

    def answer(self, seen: Seen) -> Reply:
        """The answer as it is when the call comes; one that is held leaves later."""
        reply = super().answer(seen)
        for path, asked, gate in self._held:
            if seen.path == path and not asked.is_set():
                asked.set()
                return replace(reply, gate=gate)
        return reply

    @asynccontextmanager
    async def holding(self, path: str) -> AsyncIterator[asyncio.Event]:
        """The answer to the next call to this path leaves with the end of the block. The event is set when the call has
        come.
        """
        asked, gate = asyncio.Event(), asyncio.Event()
        self._held.append((path, asked, gate))
        try:
            yield asked
        finally:
            gate.set()
            self._held.clear()


@dataclass(frozen=True)
class Shop:
    """A deployment in Stripe's test mode, on a database of its own."""

    client: httpx2.AsyncClient
    stripe: SlowStripe
    database: asyncpg.Connection
    sweeper: PurchaseSweeper

    async def buyer(self) -> "Buyer":
        """A new account."""
        return Buyer(self, await sign_up(self.client))

    async def send(self, event: JSON, *, secret: str = SECRETS[0], at: int | None = None) -> httpx2.Response:
        """The answer to one delivery of an event."""
        body, headers = self.stripe.signed(event, secret, at=at)
        return await self.client.post(WEBHOOK_PATH, content=body, headers=dict(headers))

    async def deliver(self, *events: JSON, times: int = 1) -> None:
        """Delivers each event so many times at once, one after the other; by default all that were not delivered."""
        for event in events or [self.stripe.events.pop(0) for _ in range(len(self.stripe.events))]:
            answers = await asyncio.gather(*map(self.send, repeat(event, times)))
            assert {answer.status_code for answer in answers} == {200}

    async def sweep(self) -> None:
        """One turn of the sweep, while no other process is at it."""
        for _ in looks():
            if await self.sweeper.sweep():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("another process sweeps")


@dataclass(frozen=True)
class Buyer:
    """Somebody with an account."""

    shop: Shop
    account: Account

    async def call(self, method: str, path: str, **body: Any) -> httpx2.Response:
        url = f"/v1/billing{path}"
        return await self.shop.client.request(method, url, json=body or None, headers=self.account.headers)

    async def checkout(self, path: str, **body: Any) -> str:
        """The id of a checkout session that the account has opened."""
        answer = await self.call("POST", path, **body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["url"]).rsplit("/", 1)[-1]

    async def top_up(self, amount: str = "10", *, tax: int = 0) -> str:
        """The id of a payment, about which nothing was delivered."""
        return str(self.shop.stripe.pay(await self.checkout("/top-ups", amount=amount), tax=tax)["payment_intent"])

    async def subscribe(self, plan: str = "starter") -> JSON:
        """The subscription of a plan that was paid; what is to be delivered was."""
        session = self.shop.stripe.pay(await self.checkout("/subscription", plan=plan))
        await self.shop.deliver()
        return self.shop.stripe.objects[session["subscription"]]

    async def entries(self) -> list[tuple[str, str]]:
        """Amounts and the ends of references, the oldest first."""
        listed = (await self.call("GET", "/entries?limit=100")).json()
        return [(each["amount"], each["reference"].partition(":")[2]) for each in reversed(listed)]

    async def billing(self) -> JSON:
        answer: JSON = (await self.call("GET", "")).json()
        return answer

    async def plan(self) -> tuple[str | None, str, str | None]:
        """The plan that holds, its allowance, and the status of the subscription."""
        billing = await self.billing()
        row = "select status from subscriptions where account_id = $1"
        status = await self.shop.database.fetchval(row, self.account.account_id)
        return billing["plan"], billing["allowance"], status


@asynccontextmanager
async def open_shop(
    settings: Settings,
    database_url: str,
    folder: Path,
    *,
    models: str = MODELS,
    stripe: SlowStripe | None = None,
    externals: Externals | None = None,
    **more: Any,
) -> AsyncIterator[Shop]:
    """One whose plans are at the stand-in, with both secrets of its webhook. Its file of models is in the folder."""
    (folder / "models.toml").write_text(models)
    stripe = stripe or SlowStripe()
    async with serving(stripe.answer) as stripe.url:
        changes = {
            "database_url": SecretStr(database_url),
            "models_file": folder / "models.toml",
            "billing": "on",
            "stripe_secret_key": SecretStr(stripe.key),
            "stripe_webhook_secret": SecretStr(",".join(SECRETS)),
            "stripe_api_url": stripe.url,
        }
        changed = Settings(**{**settings.model_dump(), **changes, **more})
        engine, catalogue = create_engine(database_url, pool_size=5), catalogue_of(changed)
        database = await connect_for_writing(database_url)
        async with open_stripe(changed) as client, running(changed, externals) as http:
            assert client is not None
            offers = catalogue.plans.values()
            plans = [
                PlanPrice(name=each.name, title=each.title, monthly_price=each.price) for each in offers if each.is_sold
            ]
            await client.sync(plans, "USD", webhook_url=None)
            sessions = async_sessionmaker(engine, expire_on_commit=False)
            purchases = Purchases(client, sessions, catalogue, timedelta(days=7), BillingMetrics(Families()))
            sweeper = PurchaseSweeper(purchases, partial(connect_for_writing, database_url))
            yield Shop(http, stripe, database, sweeper)
        await database.close()
        await engine.dispose()
