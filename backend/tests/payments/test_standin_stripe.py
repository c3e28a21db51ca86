"""What the stand-in refuses, as Stripe does: calls of the SDK itself, without the client around it."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from app.core.egress import Egress
from app.payments.http import Transport
from app.payments.stripe import Stripe
from stripe import AuthenticationError, IdempotencyError, InvalidRequestError, StripeClient
from tests.payments.orders import new_customer, subscribe, top_up
from tests.standins.stripe import StripeStandIn, stripe_server
from tests.standins.stripe_state import DAY

Api = Any
"""The SDK's services, untyped: what is wrong on purpose must not be seen before it is sent."""


@pytest.fixture
async def api(stripe: Stripe, standin: StripeStandIn) -> AsyncIterator[Api]:
    assert stripe  # `sync` has made a meter and prices
    transport = Transport(Egress())
    yield StripeClient(standin.key, base_addresses={"api": standin.url}, http_client=transport).v1
    await transport.close_async()


_EVENT: dict[str, Any] = {"event_name": "nanobanana_overage", "payload": {"value": "1", "stripe_customer_id": "cus_0"}}
WRONG: list[tuple[Callable[[Api], Awaitable[Any]], str | None, str | None]] = [
    (lambda api: api.customers.create_async({"emial": "a"}), "emial", "parameter_unknown"),
    (lambda api: api.checkout.sessions.create_async({"line_items": [{"quantiy": 1}]}), "line_items[0][quantiy]", None),
    (lambda api: api.prices.create_async({"currency": "usd", "unit_amount": "one"}), "unit_amount", None),
    (lambda api: api.checkout.sessions.create_async({"mode": "paymnt"}), "mode", None),
    (lambda api: api.prices.create_async({"unit_amount": 1}), "currency", "parameter_missing"),
    (lambda api: api.webhook_endpoints.create_async({"url": "x", "enabled_events": ["x"]}), "enabled_events[0]", None),
    (lambda api: api.invoices.retrieve_async("in_none"), "id", "resource_missing"),
    (lambda api: api.customers.retrieve_async("cus_none", {"expand": ["sources"]}), "expand", None),
    *(
        (lambda api, event=event: api.billing.meter_events.create_async(_EVENT | event), param, None)
        for event, param in [
            ({"timestamp": 1_700_000_000}, "timestamp"),
            ({"timestamp": 9_999_999_999}, "timestamp"),
            ({"payload": {"value": "1.5", "stripe_customer_id": "cus_0"}}, None),
            ({"event_name": "other"}, "event_name"),
            ({}, "payload[stripe_customer_id]"),
        ]
    ),
]


@pytest.mark.parametrize(("call", "param", "code"), WRONG)
async def test_a_wrong_call_is_an_error_that_names_the_parameter(
    api: Api, call: Callable[[Api], Awaitable[Any]], param: str | None, code: str | None
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        await call(api)
    error = refusal.value
    assert error.param == param
    assert code in {None, error.code}
    assert str(error.request_id).startswith("req_")


async def test_a_key_brings_its_answer_back_for_a_day_and_no_other_call(api: Api, standin: StripeStandIn) -> None:
    key = {"idempotency_key": secrets.token_hex(8)}
    first = await api.customers.create_async({"email": "a@example.com"}, key)
    again = await api.customers.create_async({"email": "a@example.com"}, key)
    assert again.id == first.id
    assert again.last_response.headers["idempotent-replayed"] == "true"
    with pytest.raises(IdempotencyError):
        await api.customers.create_async({"email": "b@example.com"}, key)
    standin.advance(DAY + 60)
    assert (await api.customers.create_async({"email": "b@example.com"}, key)).id != first.id


async def test_a_failure_is_kept_under_its_key_too(api: Api) -> None:
    key = {"idempotency_key": secrets.token_hex(8)}
    replayed = []
    for _ in range(2):
        with pytest.raises(InvalidRequestError) as refusal:
            await api.refunds.create_async({"payment_intent": "pi_none"}, key)
        replayed.append(str((refusal.value.headers or {}).get("idempotent-replayed")))
    assert replayed == ["None", "true"]


async def test_only_the_key_is_let_in_and_is_not_said(api: Api, standin: StripeStandIn) -> None:
    with pytest.raises(AuthenticationError) as refusal:
        await api.customers.retrieve_async("cus_1", None, {"api_key": f"{standin.key}x"})
    assert standin.key not in str(refusal.value)


async def test_lists_have_pages(api: Api, stripe: Stripe, standin: StripeStandIn) -> None:
    payment_id = standin.pay((await top_up(stripe, await new_customer(stripe))).id)["payment_intent"]
    made = [standin.refund(payment_id, 1)["id"] for _ in range(5)]
    listed = await api.refunds.list_async({"payment_intent": payment_id, "limit": 2})
    assert (len(listed.data), listed.has_more) == (2, True)
    assert [each.id async for each in listed.auto_paging_iter()] == made[::-1]


async def test_no_more_is_given_back_than_was_paid(api: Api, stripe: Stripe, standin: StripeStandIn) -> None:
    payment_id = standin.pay((await top_up(stripe, await new_customer(stripe))).id)["payment_intent"]
    await api.refunds.create_async({"payment_intent": payment_id, "amount": 2000})
    for amount in ({"amount": 501}, {"amount": 0}):
        with pytest.raises(InvalidRequestError):
            await api.refunds.create_async({"payment_intent": payment_id, **amount})
    await api.refunds.create_async({"payment_intent": payment_id})
    with pytest.raises(InvalidRequestError, match="already been refunded"):
        await api.refunds.create_async({"payment_intent": payment_id})


async def test_customers_pay_decline_and_leave_on_pages(stripe: Stripe, standin: StripeStandIn) -> None:
    customer_id = await new_customer(stripe)
    checkout = await top_up(stripe, customer_id)
    async with httpx2.AsyncClient(trust_env=False) as browser:
        page = await browser.get(checkout.url)
        assert page.headers["content-type"].startswith("text/html")
        assert 'href="https://here.example/"' in page.text
        declined = await browser.post(checkout.url, data={"does": "decline"})
        assert "declined" in declined.text
        paid = await browser.post(checkout.url, data={"does": "pay"})
        assert paid.headers["location"] == f"https://here.example/?done={checkout.id}"
        assert (await stripe.session(checkout.id)).payment_id
        assert "expired" in (await browser.post(checkout.url, data={"does": "pay"})).text

        subscription_id = standin.pay((await subscribe(stripe, customer_id)).id)["subscription"]
        portal = await stripe.portal(customer_id, "https://here.example/")
        await browser.post(portal, data={"does": "cancel"})
    assert (await stripe.subscription(subscription_id)).cancel_at is not None
    assert len(standin.of("payment_intent", customer=customer_id)) == 1


def test_it_goes_on_in_a_thread_of_its_own_and_fails_as_a_test_wants() -> None:
    with stripe_server() as standin:
        url, headers = f"{standin.url}/v1/prices", {"Authorization": f"Bearer {standin.key}", "Stripe-Version": "1"}
        assert httpx2.get(url, headers=headers, trust_env=False).json()["data"] == []
        standin.trouble = lambda seen: "limit" if seen.path == "/v1/prices" else None
        assert httpx2.get(url, headers=headers, trust_env=False).status_code == 429


async def test_events_go_out_in_any_order_and_any_number(stripe: Stripe, standin: StripeStandIn) -> None:
    standin.pay((await top_up(stripe, await new_customer(stripe))).id)
    paid, completed = standin.events[-2:]
    got: list[str] = []

    def receive(request: httpx2.Request) -> httpx2.Response:
        got.append(stripe.event(request.content, request.headers["stripe-signature"]).type)
        return httpx2.Response(200)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(receive)) as client:
        sent = [completed, paid, completed]
        assert await standin.deliver("https://here.example/hook", "whsec_second", *sent, client=client) == [200] * 3
    assert got == ["checkout.session.completed", "payment_intent.succeeded", "checkout.session.completed"]
