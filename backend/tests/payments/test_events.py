"""Which events are taken: those that Stripe has signed, lately, for this deployment."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from app.core.settings import Settings
from app.payments import EventRefused, InvalidSignature, WrongMode
from app.payments.opened import open_stripe
from app.payments.stripe import Stripe
from tests.payments.conftest import WEBHOOK_SECRETS
from tests.payments.orders import new_customer, top_up
from tests.standins.stripe import StripeStandIn

FIRST, SECOND = WEBHOOK_SECRETS


@pytest.fixture
async def event(stripe: Stripe, standin: StripeStandIn) -> dict[str, Any]:
    standin.pay((await top_up(stripe, await new_customer(stripe))).id)
    return standin.events[-1]


def test_a_signed_event_names_its_object_with_either_secret(
    stripe: Stripe, standin: StripeStandIn, event: dict[str, Any]
) -> None:
    for secret in (FIRST, SECOND):
        body, headers = standin.signed(event, secret)
        taken = stripe.event(body, headers["Stripe-Signature"])
        assert (taken.id, taken.type) == (event["id"], "checkout.session.completed")
        assert taken.object_id == event["data"]["object"]["id"]


def test_one_of_two_signatures_suffices(stripe: Stripe, standin: StripeStandIn, event: dict[str, Any]) -> None:
    body, headers = standin.signed(event, SECOND)
    both = headers["Stripe-Signature"].replace(",v1=", f",v1={'0' * 64},v1=")
    assert stripe.event(body, both).id == event["id"]


@pytest.mark.parametrize(
    "tampered",
    [
        lambda body, _signature: (body, ""),
        lambda body, signature: (body + b" ", signature),
        lambda body, signature: (body.replace(b'"evt_', b'"evT_'), signature),
        lambda body, signature: (body, signature.replace("v1=", "v0=")),
        lambda body, signature: (body, signature.replace("t=", "t=9")),
        lambda body, signature: (body, signature.partition(",")[2]),
        lambda body, signature: (body, signature.replace("v1=", "v1=\xe9")),
        lambda body, signature: (b"\xff" + body, signature),
        lambda body, signature: (body, "t=" + "9" * 5000 + "," + signature.partition(",")[2]),
    ],
    ids=["none", "longer", "changed", "old scheme", "other time", "no time", "not ASCII", "not UTF-8", "huge time"],
)
def test_a_signature_that_is_not_over_this_body_is_refused(
    stripe: Stripe,
    standin: StripeStandIn,
    event: dict[str, Any],
    tampered: Callable[[bytes, str], tuple[bytes, str]],
) -> None:
    body, headers = standin.signed(event, FIRST)
    with pytest.raises(InvalidSignature) as refusal:
        stripe.event(*tampered(body, headers["Stripe-Signature"]))
    assert event["id"] not in str(refusal.value)


def test_another_secret_and_an_old_signature_are_refused(
    stripe: Stripe, standin: StripeStandIn, event: dict[str, Any]
) -> None:
    now = int(time.time())
    for secret, at, is_taken in [
        ("whsec_other", now, False),
        ("", now, False),
        (FIRST, now - 301, False),
        (FIRST, now - 240, True),
    ]:
        body, headers = standin.signed(event, secret, at=at)
        try:
            taken = stripe.event(body, headers["Stripe-Signature"]).id
        except InvalidSignature:
            taken = ""
        assert bool(taken) is is_taken


@pytest.mark.parametrize("prefix", ["sk_live_", "rk_live_", "sk_test_", "rk_test_"])
async def test_events_of_the_other_mode_are_refused(standin: StripeStandIn, event: dict[str, Any], prefix: str) -> None:
    settings = Settings(
        stripe_secret_key=f"{prefix}x", stripe_webhook_secret=FIRST, stripe_api_url="http://127.0.0.1:9"
    )
    is_live = "live" in prefix
    async with open_stripe(settings) as stripe:
        assert stripe is not None
        for livemode in (True, False):
            body, headers = standin.signed(json.loads(json.dumps(event)) | {"livemode": livemode}, FIRST)
            if livemode is is_live:
                assert stripe.event(body, headers["Stripe-Signature"]).id == event["id"]
            else:
                with pytest.raises(WrongMode):
                    stripe.event(body, headers["Stripe-Signature"])


async def test_without_a_secret_every_event_is_refused(standin: StripeStandIn, event: dict[str, Any]) -> None:
    async with open_stripe(Settings(stripe_secret_key=standin.key, stripe_api_url=standin.url)) as stripe:
        assert stripe is not None
        body, headers = standin.signed(event, "")
        with pytest.raises(EventRefused):
            stripe.event(body, headers["Stripe-Signature"])
