"""What there is at Stripe now."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from app.payments import CheckoutSession, Dispute, Invoice, Payment, Refund, StripeEvent, StripeSubscription, objects

if TYPE_CHECKING:  # the SDK is not imported where there is no key
    from app.payments.sdk import Sdk

PAGE = 100


class Reading:
    """The calls that change nothing. Each raises StripeUnavailable and StripeRefused."""

    def __init__(self, sdk: "Sdk") -> None:
        self._sdk = sdk
        self._api = sdk.client.v1

    async def session(self, session_id: str) -> CheckoutSession:
        return objects.checkout_session(await self._sdk.ask(self._api.checkout.sessions.retrieve_async(session_id)))

    async def subscription(self, subscription_id: str) -> StripeSubscription:
        return objects.subscription(await self._sdk.ask(self._api.subscriptions.retrieve_async(subscription_id)))

    async def subscriptions_of(self, customer_id: str) -> Sequence[StripeSubscription]:
        """All subscriptions of a customer, the newest first, those that have ended too."""
        wanted: Any = {"customer": customer_id, "status": "all", "limit": PAGE}
        listed = await self._sdk.ask(self._api.subscriptions.list_async(wanted))
        return [objects.subscription(each) for each in await self._sdk.all_of(listed)]

    async def payment_intent(self, payment_id: str) -> Payment:
        return objects.payment(await self._sdk.ask(self._api.payment_intents.retrieve_async(payment_id)))

    async def refund(self, refund_id: str) -> Refund:
        return objects.refund(await self._sdk.ask(self._api.refunds.retrieve_async(refund_id)))

    async def refunds_of(self, payment_id: str) -> Sequence[Refund]:
        """All refunds of a payment, the newest first."""
        listed = await self._sdk.ask(self._api.refunds.list_async({"payment_intent": payment_id, "limit": PAGE}))
        return [objects.refund(each) for each in await self._sdk.all_of(listed)]

    async def dispute(self, dispute_id: str) -> Dispute:
        return objects.dispute(await self._sdk.ask(self._api.disputes.retrieve_async(dispute_id)))

    async def invoice(self, invoice_id: str) -> Invoice:
        return objects.invoice(await self._sdk.ask(self._api.invoices.retrieve_async(invoice_id)))

    async def invoices(self, customer_id: str, *, most: int = 24) -> Sequence[Invoice]:
        """The customer's last invoices, the newest first; at most 100."""
        listed = await self._sdk.ask(self._api.invoices.list_async({"customer": customer_id, "limit": most}))
        return [objects.invoice(each) for each in listed.data]

    async def events_since(self, at: datetime, *, types: Sequence[str]) -> Sequence[StripeEvent]:
        """The events of these types since then, the oldest first. Stripe keeps events for 30 days."""
        wanted: Any = {"created": {"gte": int(at.timestamp())}, "types": list(types), "limit": PAGE}
        listed = await self._sdk.ask(self._api.events.list_async(wanted))
        return [objects.event(each) for each in reversed(await self._sdk.all_of(listed))]
