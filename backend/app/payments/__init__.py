"""The port to Stripe, which takes payments: what it says, in this program's own types.

All amounts are integers, in millionths of a currency. Times are aware, in UTC. Ids are Stripe's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.core.errors import ApiError, Unavailable

DUPLICATE_METER_EVENT = "duplicate_meter_event"

EVENTS = (
    *(f"checkout.session.{each}" for each in ("completed", "async_payment_succeeded", "async_payment_failed")),
    *(f"customer.subscription.{each}" for each in ("created", "updated", "deleted")),
    *(f"invoice.{each}" for each in ("paid", "payment_failed")),
    *(f"refund.{each}" for each in ("created", "updated", "failed")),
    *(f"charge.dispute.{each}" for each in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")),
)
"""The types of events that Stripe is asked to send."""

WEBHOOK_PATH = "/v1/billing/stripe-events"
"""Where Stripe's events are received."""


class StripeUnavailable(Unavailable):
    """Stripe could not be asked, or has failed: the same call may succeed later, and may have had its effect already.

    Repeating one is safe: each call that creates something says by its Idempotency-Key what it is for.
    """

    detail = "Stripe cannot be reached now; try again later"


class StripeRefused(ApiError):
    """Stripe has refused a call, and had no effect by it. The same call fails again, until a person has found out why.

    Its text holds the error's type, code and parameter, and Stripe's id of the request; nothing that was sent. It is
    for the log, and no client is told it.
    """

    status, title, code = 502, "Bad Gateway", "payments_failed"
    detail = "Stripe has refused what this deployment asked it for; its operator finds the reason in the log"

    def __init__(self, status: int, *, kind: str, code: str, parameter: str, request_id: str) -> None:
        named = {"type": kind, "code": code, "parameter": parameter, "request": request_id}
        facts = ", ".join(f"{name} {value}" for name, value in named.items() if value)
        super().__init__(f"Stripe refused a call with status {status}: {facts}")
        self.sentence = self.detail
        self.stripe_status, self.stripe_code, self.parameter = status, code, parameter

    @property
    def is_missing(self) -> bool:
        """Whether the object that was asked for does not exist."""
        return self.stripe_code == "resource_missing"

    @property
    def is_customer_missing(self) -> bool:
        """Whether that is the customer that the call was for: one that was deleted, or is not of the key's account."""
        return self.is_missing and "customer" in self.parameter

    @property
    def needs_confirmation(self) -> bool:
        """Whether a payment failed because the bank wants its payer to confirm it, as for 3-D Secure."""
        return self.stripe_code.endswith("requires_action") or self.stripe_code == "authentication_required"


class NotSynced(Exception):
    """Something that `nanobanana billing sync` makes at Stripe is not there."""

    def __init__(self, thing: str) -> None:
        super().__init__(f"There is no {thing} at Stripe: run `nanobanana billing sync`")


class EventRefused(Exception):
    """What came as an event is none of Stripe's for this deployment. Its text holds nothing of what came."""


class InvalidSignature(EventRefused):
    """The signature is missing, older than 300 seconds, or made with none of the secrets."""

    def __init__(self) -> None:
        super().__init__("The signature is missing, too old, or not made with STRIPE_WEBHOOK_SECRET")


class WrongMode(EventRefused):
    """A live event came to a deployment with a test key, or the reverse."""

    def __init__(self) -> None:
        super().__init__("Live events and test keys, or test events and live keys, are never mixed")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A page at Stripe on which a customer pays. It is open for 24 hours."""

    id: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutSession:
    """What has become of a checkout."""

    payment_id: str | None
    """The payment of a top-up; None before it, and where a plan is bought."""
    subscription_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment, as it is now. One of a checkout for a top-up has an `account_id` and a `top_up`."""

    id: str
    is_paid: bool
    account_id: str | None
    top_up: int | None
    """What was bought by it, without taxes."""
    total: int
    """What was paid, with taxes."""
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money that was given back, or is about to be."""

    id: str
    payment_id: str | None
    amount: int
    """With taxes."""
    currency: str
    status: Literal["pending", "requires_action", "succeeded", "failed", "canceled"]

    @property
    def is_given_back(self) -> bool:
        """False where the money stays here after all. A pending refund may still fail."""
        return self.status not in {"failed", "canceled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A payment that its payer contests at the bank."""

    id: str
    payment_id: str | None
    amount: int
    """With taxes."""
    currency: str
    status: str

    @property
    def is_withdrawn(self) -> bool:
        """Whether Stripe has taken the money back. It returns where the dispute is won; inquiries take none."""
        return self.status in {"needs_response", "under_review", "lost", "appeal_needs_response", "appeal_under_review"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeSubscription:
    """A subscription, as it is now."""

    id: str
    status: Literal[
        "active", "trialing", "past_due", "unpaid", "canceled", "incomplete", "incomplete_expired", "paused"
    ]
    account_id: str | None
    customer_id: str
    plan: str | None
    """The name of its plan in the catalogue; None for a price that `billing sync` has not made."""
    price_id: str
    price: int
    """What it costs in a month, without taxes and without what a meter counts."""
    anchor: datetime
    """The time of the month at which its periods begin."""
    period_start: datetime
    period_end: datetime
    cancel_at: datetime | None
    """When it is going to end; None while it goes on."""

    @property
    def has_ended(self) -> bool:
        return self.status == "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    id: str
    number: str | None
    status: Literal["draft", "open", "paid", "uncollectible", "void"]
    created_at: datetime
    period_start: datetime
    period_end: datetime
    total: int
    """With taxes."""
    paid: int
    currency: str
    subscription_id: str | None
    url: str | None
    """The page at Stripe where the customer sees it, and pays it if it is open; None for a draft."""
    pdf_url: str | None


@dataclass(frozen=True, slots=True)
class StripeEvent:
    """An event whose signature was verified. It says what has changed, and not what is now: ask for the object."""

    id: str
    type: str
    object_id: str
    """The id of the object that it is about; empty where that has none."""


@dataclass(frozen=True, slots=True)
class PlanPrice:
    """A plan to be sold, for `sync`."""

    name: str
    title: str
    monthly_price: int


@dataclass(frozen=True, slots=True)
class Change:
    """Something that `sync` makes or changes at Stripe, such as `price nanobanana_plan_starter`."""

    action: Literal["create", "update"]
    thing: str


@dataclass(frozen=True, slots=True)
class Synced:
    """What `sync` has changed, or would change; nothing where all is there."""

    changes: Sequence[Change]
    webhook_secret: str | None = None
    """Of a new webhook endpoint: Stripe says it once."""
