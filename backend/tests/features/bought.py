"""Somebody who buys at a stand-in for Stripe, through every route for it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.payments import WEBHOOK_PATH
from app.payments.sync import lookup_key_of
from tests.features.canaries import Caller
from tests.standins.stripe import StripeStandIn, stripe_server
from tests.standins.stripe_catalogue import make_price

MODELS = """
currency = "USD"
[top_ups]
amounts = ["10"]
[plans.starter]
price = "10"
[models.nano-banana]
routes = [{ provider = "stub" }]
"""


@dataclass(frozen=True)
class Sold:
    """What a server is told to take payments with, and what of that is secret."""

    stripe: StripeStandIn
    settings: dict[str, str]
    secrets: set[str]


@contextmanager
def selling(folder: Path) -> Iterator[Sold]:
    """A stand-in at which credit and a plan can be bought."""
    (folder / "models.toml").write_text(MODELS)
    webhook_secret = f"whsec_{secrets.token_hex(16)}"
    with stripe_server() as stripe:
        monthly = {"interval": "month"}
        about = {"lookup_key": lookup_key_of("starter"), "metadata": {"plan": "starter"}}
        make_price(stripe, about | {"currency": "usd", "unit_amount": 1000, "recurring": monthly})
        settings = {
            "MODELS_FILE": str(folder / "models.toml"),
            "STRIPE_API_URL": stripe.url,
            "STRIPE_SECRET_KEY": stripe.key,
            "STRIPE_WEBHOOK_SECRET": webhook_secret,
        }
        yield Sold(stripe, settings, {stripe.key, webhook_secret})


async def buy(caller: Caller, sold: Sold) -> None:
    """Calls each route as it should be and as it should not, and delivers an event."""
    await caller.call("GET", "/v1/plans")
    await caller.call("DELETE", "/v1/billing/subscription", caller.token)
    for path, body in (("top-ups", {"amount": "10"}), ("subscription", {"plan": "starter"})):
        for wrong in (dict.fromkeys(body, caller.other), body | {caller.other: caller.other}):
            await caller.call("POST", f"/v1/billing/{path}", caller.token, json=wrong)
        opened = await caller.call("POST", f"/v1/billing/{path}", caller.token, json=body)
        sold.stripe.pay(opened.json()["url"].rpartition("/")[2])
    for credential in (caller.token, caller.other):
        await caller.call("POST", f"/v1/billing/portal?{caller.other}", credential)
        await caller.call("GET", f"/v1/billing/invoices?{caller.other}", credential)
    await caller.call("DELETE", "/v1/billing/subscription", caller.token)
    for event in sold.stripe.events:
        for secret in (sold.settings["STRIPE_WEBHOOK_SECRET"], caller.other):
            content, headers = sold.stripe.signed(event, secret)
            await caller.call("POST", WEBHOOK_PATH, content=content, headers=dict(headers))
