"""Stripe's SDK, set up, and its errors in this program's words. It is imported only where STRIPE_SECRET_KEY is set."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import stripe
from stripe import StripeClient

from app.core.egress import Egress
from app.payments import (
    DUPLICATE_METER_EVENT,
    InvalidSignature,
    StripeEvent,
    StripeRefused,
    StripeUnavailable,
    WrongMode,
)
from app.payments.http import Transport

API_VERSION = "2026-10-28.endive"
"""The version that the types of the pinned SDK describe. An update of the SDK does not change it."""

TOLERANCE_SECONDS = 300
_RETRIES = 1
_KEY_SECONDS = 600
_CONFLICT, _TOO_MANY_REQUESTS = 409, 429

Result = TypeVar("Result")
Item = TypeVar("Item", bound=stripe.StripeObject)

stripe.enable_telemetry = False  # it would write a file into the user's home, and send the platform's name
logging.getLogger("stripe").setLevel(logging.WARNING)  # below that, bodies are logged, with new secrets in them


class Sdk:
    """Stripe's client for one key, and what a deployment with that key accepts."""

    def __init__(
        self, client: StripeClient, *, is_live: bool, webhook_secrets: Sequence[str], clock: Callable[[], float]
    ) -> None:
        self.client = client
        self._is_live = is_live
        self._webhook_secrets = webhook_secrets
        self._clock = clock

    def key_for(self, *purpose: str) -> stripe.RequestOptions:
        """The Idempotency-Key of a call for this purpose: the same for all such calls within ten minutes of the clock.

        Stripe answers a key for a day as it did the first time, also where that was a failure of its own. So a call
        that has failed so can succeed with the next key.
        """
        return {"idempotency_key": ":".join((*purpose, str(int(self._clock() // _KEY_SECONDS))))}

    async def ask(self, call: Awaitable[Result]) -> Result:
        """The result of a call. Raises StripeUnavailable and StripeRefused, and no error of the SDK."""
        try:
            return await call
        except stripe.StripeError as error:
            raise _translated(error) from None

    async def all_of(self, listed: stripe.ListObject[Item]) -> Sequence[Item]:
        """What a first page lists, and the pages after it. Raises what `ask` raises."""

        async def read() -> Sequence[Item]:
            return [each async for each in listed.auto_paging_iter()]

        return await self.ask(read())

    def verify(self, payload: bytes, signature: str) -> StripeEvent:
        """The event, if one of the secrets has signed it. Raises InvalidSignature and WrongMode."""
        if not any(_is_signed(payload, signature, secret) for secret in self._webhook_secrets):
            raise InvalidSignature
        event = json.loads(payload)
        if event["livemode"] is not self._is_live:
            raise WrongMode
        return StripeEvent(event["id"], event["type"], object_id=event["data"]["object"].get("id") or "")


@asynccontextmanager
async def open_sdk(
    key: str, url: str, egress: Egress, *, is_live: bool, webhook_secrets: Sequence[str], clock: Callable[[], float]
) -> AsyncIterator[Sdk]:
    transport = Transport(egress)
    client = StripeClient(
        key,
        stripe_version=API_VERSION,
        base_addresses={"api": url},
        max_network_retries=_RETRIES,
        http_client=transport,
    )
    try:
        yield Sdk(client, is_live=is_live, webhook_secrets=webhook_secrets, clock=clock)
    finally:
        await transport.close_async()


def _is_signed(payload: bytes, signature: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(payload, signature, secret, TOLERANCE_SECONDS)
    except (stripe.SignatureVerificationError, UnicodeDecodeError, TypeError):  # of a text that is no UTF-8 or no ASCII
        return False
    return True


def _translated(error: stripe.StripeError) -> StripeUnavailable | StripeRefused:
    status = error.http_status or 0
    if status not in range(400, 500) or status in {_CONFLICT, _TOO_MANY_REQUESTS}:
        return StripeUnavailable()
    body = error.json_body if isinstance(error.json_body, dict) else {}
    details = body.get("error") or {}
    kind, code, parameter = (str(details.get(name) or "") for name in ("type", "code", "param"))
    is_repeated_event = "already exists with identifier" in str(details.get("message"))  # it may come without a code
    return StripeRefused(
        status,
        kind=kind,
        code=DUPLICATE_METER_EVENT if is_repeated_event else code,
        parameter=parameter,
        request_id=str(error.request_id or ""),
    )
