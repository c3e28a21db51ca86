"""What `nanobanana billing sync` makes at Stripe: products and prices of plans, the meter, webhooks, the portal.

Each thing is found again by a name of its own, so that a second run changes nothing: products by their id, prices by
their lookup key, the meter by the name of its events, the webhook endpoint by its URL, the portal by its metadata.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from app.payments import EVENTS, Change, PlanPrice, StripeRefused, Synced, objects
from app.payments.minor_units import to_millionths, to_minor_units

if TYPE_CHECKING:  # the SDK is not imported where there is no key
    import stripe
    from stripe import billing, billing_portal

    from app.payments.sdk import Sdk

OVERAGE = "nanobanana_overage"
"""The name of the meter's events, the lookup key of their price, and the id of its product."""

_MARK = {"made_by": "nanobanana"}
_PORTAL: Mapping[str, Any] = {
    "customer_update": {"enabled": True, "allowed_updates": ["address", "name", "tax_id"]},
    "invoice_history": {"enabled": True},
    "payment_method_update": {"enabled": True},
    "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
}


def lookup_key_of(plan: str) -> str:
    """The lookup key of a plan's price, and the id of its product."""
    return f"nanobanana_plan_{plan}"


async def find_meter(sdk: "Sdk") -> "billing.Meter | None":
    listed = await sdk.ask(sdk.client.v1.billing.meters.list_async({"status": "active", "limit": 100}))
    return next((each for each in await sdk.all_of(listed) if each.event_name == OVERAGE), None)


async def find_portal(sdk: "Sdk") -> "billing_portal.Configuration | None":
    listed = await sdk.ask(sdk.client.v1.billing_portal.configurations.list_async({"active": True, "limit": 100}))
    marked = (each for each in await sdk.all_of(listed) if each.metadata and each.metadata.to_dict() == _MARK)
    return next(marked, None)


class Sync:
    """One run. `is_check` writes nothing, and notes the same changes."""

    def __init__(self, sdk: "Sdk", *, is_check: bool) -> None:
        self._sdk = sdk
        self._api = sdk.client.v1
        self._is_check = is_check
        self._changes: list[Change] = []

    async def run(self, plans: Sequence[PlanPrice], currency: str, webhook_url: str | None) -> Synced:
        """Raises NotPayable for a monthly price that is no amount of the currency, before anything is written."""
        units = {plan.name: to_minor_units(plan.monthly_price, currency) for plan in plans}
        for plan in plans:
            product_id = await self._product(lookup_key_of(plan.name), plan.title)
            price = {"unit_amount": units[plan.name], "recurring": {"interval": "month"}}
            await self._price(lookup_key_of(plan.name), product_id, currency, price, {objects.PLAN: plan.name})
        await self._overage(currency)
        await self._portal()
        secret = await self._webhook(webhook_url) if webhook_url else None
        return Synced(tuple(self._changes), secret)

    async def _overage(self, currency: str) -> None:
        """One unit of the meter is a millionth of the currency."""
        meter = await find_meter(self._sdk)
        meter_id = meter.id if meter else "(new)"
        if meter is None and self._note("create", f"meter {OVERAGE}"):
            created = await self._sdk.ask(
                self._api.billing.meters.create_async(
                    {
                        "display_name": "Images beyond the allowance",
                        "event_name": OVERAGE,
                        "default_aggregation": {"formula": "sum"},
                        "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
                        "value_settings": {"event_payload_key": "value"},
                    }
                )
            )
            meter_id = created.id
        product_id = await self._product(OVERAGE, "Images beyond the allowance")
        unit = Decimal(1) / to_millionths(1, currency)
        recurring = {"interval": "month", "usage_type": "metered", "meter": meter_id}
        await self._price(OVERAGE, product_id, currency, {"unit_amount_decimal": unit, "recurring": recurring}, {})

    async def _product(self, product_id: str, title: str) -> str:
        try:
            found = await self._sdk.ask(self._api.products.retrieve_async(product_id))
        except StripeRefused as error:
            if not error.is_missing:
                raise
            if self._note("create", f"product {product_id}"):
                product: Any = {"id": product_id, "name": title, "metadata": _MARK}
                await self._sdk.ask(self._api.products.create_async(product))
            return product_id
        is_right = found.name == title and found.active
        if not is_right and self._note("update", f"product {product_id}"):
            await self._sdk.ask(self._api.products.update_async(product_id, {"name": title, "active": True}))
        return product_id

    async def _price(
        self, key: str, product_id: str, currency: str, price: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """A price cannot be changed: another one takes its lookup key over, and subscriptions keep theirs."""
        listed = await self._sdk.ask(self._api.prices.list_async({"lookup_keys": [key], "active": True}))
        found = next(iter(listed.data), None)
        if found is not None and _is_same(found, product_id, currency, price):
            return
        if self._note("update" if found else "create", f"price {key}"):
            wanted: Any = {
                "product": product_id,
                "currency": currency.lower(),
                "lookup_key": key,
                "transfer_lookup_key": True,
                "tax_behavior": "exclusive",
                "metadata": {**_MARK, **metadata},
                **price,
            }
            # The key names the price that is replaced: back at an earlier amount within a day, it is a new one all the
            # same.
            replaced = found.id if found else "none"
            options = self._sdk.key_for("price", key, _amount(price), currency.lower(), replaced)
            await self._sdk.ask(self._api.prices.create_async(wanted, options))

    async def _portal(self) -> None:
        found = await find_portal(self._sdk)
        if found is None:
            if self._note("create", "portal"):
                wanted: Any = {"features": _PORTAL, "metadata": _MARK, "name": "NanoBanana"}
                await self._sdk.ask(self._api.billing_portal.configurations.create_async(wanted))
        elif not _includes(found.features.to_dict(), _PORTAL) and self._note("update", "portal"):
            change: Any = {"features": _PORTAL}
            await self._sdk.ask(self._api.billing_portal.configurations.update_async(found.id, change))

    async def _webhook(self, url: str) -> str | None:
        """The secret of an endpoint that was made."""
        listed = await self._sdk.ask(self._api.webhook_endpoints.list_async({"limit": 100}))
        found = next((each for each in await self._sdk.all_of(listed) if each.url == url), None)
        events: Any = list(EVENTS)
        if found is None:
            if not self._note("create", f"webhook endpoint {url}"):
                return None
            endpoint: Any = {"url": url, "enabled_events": events, "metadata": _MARK}
            return (await self._sdk.ask(self._api.webhook_endpoints.create_async(endpoint))).secret
        is_right = set(found.enabled_events) >= set(events) and found.status == "enabled"
        if not is_right and self._note("update", f"webhook endpoint {url}"):
            change: Any = {"enabled_events": sorted({*found.enabled_events, *events}), "disabled": False}
            await self._sdk.ask(self._api.webhook_endpoints.update_async(found.id, change))
        return None

    def _note(self, action: Any, thing: str) -> bool:
        """Notes a change. Returns whether it is to be made."""
        self._changes.append(Change(action, thing))
        return not self._is_check


def _amount(price: Mapping[str, Any]) -> str:
    return str(price.get("unit_amount", price.get("unit_amount_decimal")))


def _is_same(found: "stripe.Price", product_id: str, currency: str, wanted: Mapping[str, Any]) -> bool:
    recurring = found.recurring.to_dict() if found.recurring else {}
    amount = found.unit_amount_decimal
    return (
        found.product == product_id
        and found.currency == currency.lower()
        and amount is not None
        and Decimal(amount) == Decimal(_amount(wanted))
        and _includes(recurring, wanted["recurring"])
    )


def _includes(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is so; Stripe adds defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_includes(found.get(name), wanted[name]) for name in wanted)
    return sorted(found or []) == sorted(wanted) if isinstance(wanted, list) else found == wanted
