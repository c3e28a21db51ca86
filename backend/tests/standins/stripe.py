"""A stand-in for Stripe, which the official SDK calls over a socket, unmodified: what it does and how it fails.

It knows the parameters from the SDK's own types, keeps each `Idempotency-Key` for a day of its own clock, which a test
moves, and signs its events by the SDK's code. What customers do stands in its methods and on its pages.
"""

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import httpx2
import stripe
from stripe import params as event_params
from tests.standins import (
    stripe_billing,
    stripe_catalogue,
    stripe_checkout,
    stripe_meters,
    stripe_payments,
)
from tests.standins.stripe_forms import Json, StripeFault, checked, decoded
from tests.standins.stripe_state import DAY, Route, State, page, retrieving
from tests.standins.wire import Reply, Seen, json_reply, serving

Trouble = Literal["refuse", "fail", "lose", "close", "limit"]
"""A call has no effect and fails with 500; was begun, has none and fails with 500, as all with its key then do; has its
effect, and no answer comes; has none, and the connection ends; has none, and comes too often.
"""

_ROUTES: tuple[Route, ...] = (
    *stripe_catalogue.ROUTES,
    *stripe_checkout.ROUTES,
    *stripe_payments.ROUTES,
    *stripe_billing.ROUTES,
    *stripe_meters.ROUTES,
    Route(
        "GET",
        "/v1/events",
        event_params.EventListParams,
        lambda state, given: page(
            (
                each
                for each in state.of("event")
                if each["type"] in given.get("types", [each["type"]])
                and each["created"] >= given.get("created", {}).get("gte", 0)
            ),
            given,
            "/v1/events",
        ),
    ),
    retrieving("/v1/events", "event", event_params.EventRetrieveParams),
)


class _Kept(NamedTuple):
    """What was answered to the first request with an Idempotency-Key."""

    request: tuple[str, str, str]
    reply: Reply
    at: int


class StripeStandIn(State):
    """One account at Stripe, in the mode of its key.

    `trouble` is asked about each call that is well-formed, before it is answered; `troubles` are for the next calls
    that begin so, such as `POST /v1/customers`.
    """

    def __init__(self, *, key: str = "") -> None:
        self.key = key or f"sk_test_{secrets.token_hex(12)}"
        super().__init__(is_live="_live_" in self.key)
        self.seen: list[Seen] = []
        self.troubles: deque[tuple[str, Trouble]] = deque()
        self.trouble: Callable[[Seen], Trouble | None] = lambda _seen: None
        self.events: list[Json] = []
        self.when_emitted = self.events.append
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.RLock()

    def answer(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            if not seen.path.startswith("/v1/"):
                return stripe_checkout.answer_browser(self, seen)
            try:
                reply = self._answer_call(seen)
            except StripeFault as fault:
                reply = json_reply(fault.body, status=fault.status)
            return replace(reply, headers=reply.headers | {"Request-Id": self.new_id("req")})

    def signed(self, event: Json, secret: str, *, at: int | None = None) -> tuple[bytes, Mapping[str, str]]:
        """The body and the headers with which an event is sent, by the real clock unless `at` is given."""
        body = json.dumps(event, indent=2)
        signature = stripe.WebhookSignature.generate_signature_header(body, secret, at)
        return body.encode(), {"Stripe-Signature": signature, "Content-Type": "application/json; charset=utf-8"}

    async def deliver(
        self, url: str, secret: str, *events: Json, client: httpx2.AsyncClient | None = None
    ) -> list[int]:
        """Sends these events, or all that there were, in this order. Returns the statuses of the answers."""
        async with asynccontextmanager(_given)(client) as sender:
            return [
                (await sender.post(url, content=body, headers=dict(headers))).status_code
                for body, headers in (self.signed(event, secret) for event in events or list(self.events))
            ]

    def pay(self, session_id: str, *, is_settled: bool = True, tax: int = 0) -> Json:
        """A customer pays at a checkout. See `stripe_checkout.complete`."""
        with self._lock:
            return stripe_checkout.complete(self, session_id, is_settled=is_settled, tax=tax)

    def settle(self, session_id: str, *, is_paid: bool) -> Json:
        """The money of a checkout that was completed without it has come, or will not."""
        with self._lock:
            return stripe_checkout.settle(self, session_id, is_paid=is_paid)

    def refund(self, payment_id: str, amount: int | None = None, *, status: str = "succeeded") -> Json:
        """An operator gives back so many minor units on Stripe's own pages, by default all that is left."""
        with self._lock:
            return stripe_payments.refund(self, payment_id, amount, status=status)

    def change_refund(self, refund_id: str, status: str) -> Json:
        with self._lock:
            return stripe_payments.change_refund(self, refund_id, status)

    def dispute(self, payment_id: str, *, status: str = "needs_response") -> Json:
        with self._lock:
            return stripe_payments.dispute(self, payment_id, status=status)

    def close_dispute(self, dispute_id: str, *, is_won: bool) -> Json:
        with self._lock:
            return stripe_payments.close_dispute(self, dispute_id, is_won=is_won)

    def decline_card(self, customer_id: str) -> None:
        """From now on the customer's payments fail."""
        self.declined.add(customer_id)

    def accept_card(self, customer_id: str) -> None:
        """The customer has another card, by which all that is open is paid."""
        with self._lock:
            self.declined.discard(customer_id)
            for invoice in reversed(self.of("invoice", customer=customer_id, status="open")):
                stripe_billing.attempt(self, invoice)

    def delete_customer(self, customer_id: str) -> None:
        """An operator deletes the customer on Stripe's own pages."""
        with self._lock:
            stripe_catalogue.delete_customer(self, customer_id)

    def give_up(self, subscription_id: str) -> None:
        """The last attempt at an open invoice has failed: the subscription ends."""
        with self._lock:
            stripe_billing.give_up(self, subscription_id)

    def advance(self, seconds: float) -> None:
        """The clock goes forward. Periods that end on the way are billed; keys and identifiers are forgotten."""
        with self._lock:
            stripe_billing.advance(self, self.now() + int(seconds))

    def _answer_call(self, seen: Seen) -> Reply:
        if seen.headers.get("authorization") != f"Bearer {self.key}":
            raise StripeFault(401, f"Invalid API Key provided: {'*' * 12}")
        if not seen.headers.get("stripe-version"):
            raise StripeFault(400, "The version has to be pinned.", param="stripe-version")
        route, ids = _routed(seen)
        given = checked(decoded(seen.body.decode() or urlsplit(seen.target).query), route.params)
        if given.pop("expand", None):
            raise StripeFault(400, "This stand-in expands nothing.", param="expand")
        trouble = self._trouble_of(seen)
        if trouble in _WITHOUT_EFFECT:
            return _WITHOUT_EFFECT[trouble]
        key = seen.headers.get("idempotency-key") if seen.method == "POST" else None
        kept = self._kept_reply(key, seen) if key else None
        reply = kept or self._kept_for(
            key, seen, lambda: _FAILED if trouble == "fail" else json_reply(route.handle(self, given, *ids))
        )
        return Reply(is_closed=True) if trouble == "lose" else reply

    def _kept_reply(self, key: str, seen: Seen) -> Reply | None:
        kept = self._kept.get(key)
        if kept is None or kept.at <= self.now() - DAY:
            return None
        if kept.request != _request_of(seen):
            message = (
                "Keys for idempotent requests can only be used with the same parameters they were first used with."
            )
            raise StripeFault(400, message, kind="idempotency_error")
        return replace(kept.reply, headers=kept.reply.headers | {"Idempotent-Replayed": "true"})

    def _kept_for(self, key: str | None, seen: Seen, act: Callable[[], Reply]) -> Reply:
        """What is answered to a call that was begun is kept, be it a failure."""
        try:
            reply = act()
        except StripeFault as fault:
            reply = json_reply(fault.body, status=fault.status)
        if key:
            self._kept[key] = _Kept(_request_of(seen), reply, self.now())
        return reply

    def _trouble_of(self, seen: Seen) -> Trouble | None:
        for entry in self.troubles:
            if f"{seen.method} {seen.path}".startswith(entry[0]):
                self.troubles.remove(entry)
                return entry[1]
        return self.trouble(seen)


_FAILED = json_reply({"error": {"type": "api_error", "message": "An unknown error occurred"}}, status=500)
_WITHOUT_EFFECT: Mapping[Any, Reply] = {
    "refuse": _FAILED,
    "close": Reply(is_closed=True),
    "limit": json_reply({"error": {"type": "invalid_request_error", "code": "rate_limit"}}, status=429),
}


def _request_of(seen: Seen) -> tuple[str, str, str]:
    return seen.method, seen.target, seen.body.decode()


def _routed(seen: Seen) -> tuple[Route, list[str]]:
    parts = seen.path.split("/")
    for route in _ROUTES:
        wanted = route.path.split("/")
        if route.method == seen.method and len(wanted) == len(parts):
            pairs = list(zip(wanted, parts, strict=True))
            if all(name in {part, "*"} for name, part in pairs):
                return route, [part for name, part in pairs if name == "*"]
    raise StripeFault(404, f"Unrecognized request URL ({seen.method}: {seen.path}).")


async def _given(client: httpx2.AsyncClient | None) -> AsyncIterator[httpx2.AsyncClient]:
    if client is not None:
        yield client
        return
    async with httpx2.AsyncClient(trust_env=False) as own:
        yield own


@asynccontextmanager
async def serving_stripe(*, key: str = "") -> AsyncIterator[StripeStandIn]:
    """A stand-in on a free loopback port, in this event loop."""
    standin = StripeStandIn(key=key)
    async with serving(standin.answer) as standin.url:
        yield standin


@contextmanager
def stripe_server(*, key: str = "") -> Iterator[StripeStandIn]:
    """The same in a thread of its own, which goes on while a test's event loop stands still."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    found: list[StripeStandIn] = []
    stopping = asyncio.Event()

    async def run() -> None:
        async with serving_stripe(key=key) as standin:
            found.append(standin)
            ready.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="stripe", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
