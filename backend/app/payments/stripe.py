"""Stripe, as the rest of the program asks it."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from app.payments import (
    DUPLICATE_METER_EVENT,
    Checkout,
    NotSynced,
    PlanPrice,
    StripeEvent,
    StripeRefused,
    StripeSubscription,
    StripeUnavailable,
    Synced,
    objects,
)
from app.payments.minor_units import to_minor_units
from app.payments.reading import PAGE, Reading
from app.payments.sync import OVERAGE, Sync, find_meter, find_portal, lookup_key_of

if TYPE_CHECKING:  # the SDK is not imported where there is no key
    from app.payments.sdk import Sdk

_HOUR = 3600
_CUSTOMERS_MAX = 20
"""Customers of one account that may have been deleted lately."""
_EXACT_BELOW = 2**53
"""Stripe's sums come as floating-point numbers, which are exact up to here."""


class Stripe(Reading):
    """Stripe's API with one key. Amounts are in millionths of `currency`, in upper or lower case.

    Every method that asks Stripe, here and in `Reading`, raises StripeUnavailable where it cannot be asked,
    StripeRefused where it refuses, and NotSynced where `nanobanana billing sync` has to be run before.
    """

    def __init__(self, sdk: "Sdk", *, has_tax: bool) -> None:
        super().__init__(sdk)
        self._has_tax = has_tax
        self._meter_id: str | None = None
        self._portal_id: str | None = None

    async def check(self) -> None:
        """Asks for something that changes nothing."""
        await self._sdk.ask(self._api.prices.list_async({"limit": 1}))

    async def find_or_create_customer(self, account_id: str, email: str) -> str:
        """The id of the account's customer, who then has this email, and none that was deleted, although Stripe's
        search finds it for a while. Calls at the same time find the same one, unless their keys differ (`key_for`):
        use the one that was stored first.
        """
        query = f"metadata['{objects.ACCOUNT}']:'{account_id}'"
        listed = await self._sdk.ask(self._api.customers.search_async({"query": query, "limit": PAGE}))
        found, deleted = [each.id for each in listed.data], ""
        for _ in range(_CUSTOMERS_MAX):
            customer_id = found.pop(0) if found else await self._create_customer(account_id, after=deleted)
            try:
                await self._sdk.ask(self._api.customers.update_async(customer_id, {"email": email}))
            except StripeRefused as error:
                if not error.is_missing:
                    raise
                deleted = customer_id
            else:
                return customer_id
        raise StripeUnavailable

    async def is_deleted(self, customer_id: str) -> bool:
        """Whether the customer was deleted. Raises StripeRefused for one that has never been: it is of another account
        of Stripe's than the key.
        """
        found = await self._sdk.ask(self._api.customers.retrieve_async(customer_id))
        return bool(getattr(found, "deleted", False))

    async def checkout_for_top_up(
        self,
        *,
        customer_id: str,
        amount: int,
        currency: str,
        account_id: str,
        success_url: str,
        cancel_url: str,
        idempotency_key: str,
    ) -> Checkout:
        """A page on which the customer pays for so much credit, and taxes. Raises NotPayable before anything is sent.

        With the same `idempotency_key` within a day it is the same page.
        """
        about = {objects.ACCOUNT: account_id, objects.TOP_UP: str(amount)}
        price: dict[str, Any] = {
            "currency": currency.lower(),
            "unit_amount": to_minor_units(amount, currency),
            "product_data": {"name": "Credit"},
        }
        if self._has_tax:
            price["tax_behavior"] = "exclusive"
        return await self._checkout(
            {
                "mode": "payment",
                "customer": customer_id,
                "line_items": [{"price_data": price, "quantity": 1}],
                "payment_intent_data": {"metadata": about},
                "adaptive_pricing": {"enabled": False},  # else the amount could be one of another currency
            },
            account_id=account_id,
            urls=(success_url, cancel_url),
            idempotency_key=idempotency_key,
        )

    async def checkout_for_plan(
        self,
        *,
        customer_id: str,
        account_id: str,
        plan: str,
        price_id: str | None = None,
        has_overage: bool,
        anchor: datetime | None = None,
        success_url: str,
        cancel_url: str,
        idempotency_key: str,
    ) -> Checkout:
        """A page on which the customer subscribes to the plan, at the price that `sync` has made unless there is a
        `price_id`. With an `anchor`, which is in the future, the first month ends then and costs its part; without one
        it begins at the payment.
        """
        about = {objects.ACCOUNT: account_id, objects.PLAN: plan}
        subscription: dict[str, Any] = {"metadata": about}
        if anchor is not None:
            subscription["billing_cycle_anchor"] = int(anchor.timestamp())
        return await self._checkout(
            {
                "mode": "subscription",
                "customer": customer_id,
                "line_items": await self._items(plan, price_id, has_overage=has_overage),
                "subscription_data": subscription,
            },
            account_id=account_id,
            urls=(success_url, cancel_url),
            idempotency_key=idempotency_key,
        )

    async def change_plan(
        self,
        subscription_id: str,
        *,
        plan: str,
        price_id: str | None = None,
        has_overage: bool,
        is_paid_at_once: bool,
        idempotency_key: str,
    ) -> StripeSubscription:
        """Exchanges the plan of a subscription now, and gives nothing back for the rest of its month. Where it
        `is_paid_at_once`, a month begins, and StripeRefused with status 402 means that it could not be paid, and that
        nothing has changed; else the new price is paid from the next month on. What the meter has counted is billed,
        also where the new plan has none.
        """
        found = await self._sdk.ask(self._api.subscriptions.retrieve_async(subscription_id))
        wanted = await self._items(plan, price_id, has_overage=has_overage)
        kept = {each.price.id for each in found.items.data} & {each["price"] for each in wanted}
        # The meter's item stays without overage too: Stripe bills nothing for what an item that is removed without
        # prorations has counted.
        leaving = [
            {"id": each.id, "deleted": True}
            for each in found.items.data
            if each.price.id not in kept and (has_overage or not objects.is_metered(each))
        ]
        changes: Any = [*leaving, *(each for each in wanted if each["price"] not in kept)]
        if not changes:
            return objects.subscription(found)
        change: Any = {"items": changes, "metadata": {objects.PLAN: plan}, "proration_behavior": "none"}
        if is_paid_at_once:
            change |= {"billing_cycle_anchor": {"type": "now"}, "payment_behavior": "error_if_incomplete"}
        changed = await self._sdk.ask(
            self._api.subscriptions.update_async(subscription_id, change, {"idempotency_key": idempotency_key})
        )
        return objects.subscription(changed)

    async def cancel_at_period_end(self, subscription_id: str, *, is_cancelled: bool) -> StripeSubscription:
        """Ends a subscription with its current period, or takes that back while the period lasts."""
        change = self._api.subscriptions.update_async(subscription_id, {"cancel_at_period_end": is_cancelled})
        return objects.subscription(await self._sdk.ask(change))

    async def cancel(self, subscription_id: str) -> None:
        """Ends a subscription now, if it has not ended. Nothing is given back for the rest of its month; what its meter
        has counted is billed.
        """
        change: Any = {"prorate": False, "invoice_now": True}
        try:
            await self._sdk.ask(self._api.subscriptions.cancel_async(subscription_id, change))
        except StripeRefused as error:
            if not error.is_missing:
                raise

    async def portal(self, customer_id: str, return_url: str) -> str:
        """The URL of a page where the customer sees invoices, changes the card and cancels. It is good for minutes."""
        session: Any = {"customer": customer_id, "return_url": return_url}
        if configuration := await self._portal_configuration():
            session["configuration"] = configuration
        return (await self._sdk.ask(self._api.billing_portal.sessions.create_async(session))).url

    async def send_meter_event(
        self, *, customer_id: str, identifier: str, value: int, at: datetime, ends_at: datetime | None = None
    ) -> None:
        """Reports so many millionths to be billed for the hour of `at`, which is over; `ends_at` is when the customer's
        subscription ends. Returns where they are, or were before, with this identifier. Stripe forgets an identifier
        after a day: from then on the same event would be billed twice.
        """
        # Stripe bills what lies within the subscription. That may have begun within the hour, so the event is dated at
        # the last second, or at the last before the subscription's end.
        begin = int(at.timestamp()) // _HOUR * _HOUR
        end = begin + _HOUR if ends_at is None else min(begin + _HOUR, int(ends_at.timestamp()))
        stamp = max(begin, end - 1)
        payload = {"stripe_customer_id": customer_id, "value": str(value)}
        try:
            await self._sdk.ask(
                self._api.billing.meter_events.create_async(
                    {
                        "event_name": OVERAGE,
                        "identifier": identifier,
                        "timestamp": stamp,
                        "payload": payload,
                    },
                    self._sdk.key_for("meter", identifier, str(value), str(stamp)),
                )
            )
        except StripeRefused as error:
            if error.stripe_code != DUPLICATE_METER_EVENT:
                raise

    async def meter_total(self, customer_id: str, hour: datetime) -> int:
        """What Stripe has counted of the customer's meter events in the hour that begins then, in millionths. An event
        is counted some time after it was taken, and none for a customer that was deleted.
        """
        begin = int(hour.timestamp())
        window: Any = {"customer": customer_id, "start_time": begin, "end_time": begin + _HOUR, "limit": PAGE}
        summaries = self._api.billing.meters.event_summaries
        try:
            listed = await self._sdk.ask(summaries.list_async(await self._meter(), window))
        except StripeRefused as error:
            if error.is_customer_missing:
                return 0
            raise
        totals = [each.aggregated_value for each in await self._sdk.all_of(listed)]
        if not all(total == int(total) and abs(total) < _EXACT_BELOW for total in totals):
            raise ValueError("Stripe has counted what is no whole number of millionths")
        return sum(int(total) for total in totals)

    def event(self, payload: bytes, signature: str) -> StripeEvent:
        """The event that came with this header `Stripe-Signature`; `payload` is the body as it came.

        Raises InvalidSignature and WrongMode. Nothing is asked for.
        """
        return self._sdk.verify(payload, signature)

    async def sync(
        self, plans: Sequence[PlanPrice], currency: str, *, webhook_url: str | None, is_check: bool = False
    ) -> Synced:
        """Makes at Stripe what the plans need: see `app.payments.sync`. With `is_check` nothing is written."""
        return await Sync(self._sdk, is_check=is_check).run(plans, currency, webhook_url)

    async def _create_customer(self, account_id: str, *, after: str) -> str:
        """Nothing but the account is sent: the same key with another email would be refused."""
        new = self._api.customers.create_async(
            {"metadata": {objects.ACCOUNT: account_id}}, self._sdk.key_for("customer", account_id, after)
        )
        return (await self._sdk.ask(new)).id

    async def _checkout(
        self, params: dict[str, Any], *, account_id: str, urls: tuple[str, str], idempotency_key: str
    ) -> Checkout:
        whole: Any = params | {"client_reference_id": account_id, "success_url": urls[0], "cancel_url": urls[1]}
        if self._has_tax:
            whole["automatic_tax"] = whole["tax_id_collection"] = {"enabled": True}
            whole["customer_update"] = {"address": "auto", "name": "auto"}
        call = self._api.checkout.sessions.create_async(whole, {"idempotency_key": idempotency_key})
        session = await self._sdk.ask(call)
        return Checkout(session.id, session.url or "")

    async def _items(self, plan: str, price_id: str | None, *, has_overage: bool) -> list[Any]:
        items: list[Any] = [{"price": price_id or await self._price(lookup_key_of(plan)), "quantity": 1}]
        return [*items, {"price": await self._price(OVERAGE)}] if has_overage else items

    async def _price(self, lookup_key: str) -> str:
        found = await self._sdk.ask(self._api.prices.list_async({"lookup_keys": [lookup_key], "active": True}))
        if not found.data:
            raise NotSynced(f"price {lookup_key}")
        return found.data[0].id

    async def _meter(self) -> str:
        if self._meter_id is None:
            found = await find_meter(self._sdk)
            if found is None:
                raise NotSynced(f"meter {OVERAGE}")
            self._meter_id = found.id
        return self._meter_id

    async def _portal_configuration(self) -> str | None:
        """The one that `sync` has made; None for Stripe's own."""
        if self._portal_id is None:
            found = await find_portal(self._sdk)
            self._portal_id = found.id if found else None
        return self._portal_id
