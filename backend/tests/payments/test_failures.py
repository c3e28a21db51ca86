"""How calls to Stripe fail: in two kinds of errors, once for all that a call is for, and without a word of secrets."""

import asyncio
import logging
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import pytest
from app.core.egress import Egress
from app.core.settings import Settings
from app.payments import PlanPrice, StripeRefused, StripeUnavailable
from app.payments.http import Transport
from app.payments.opened import open_stripe
from app.payments.stripe import Stripe
from stripe import APIConnectionError
from tests.harness import Clock
from tests.payments.orders import new_account_id, new_customer
from tests.standins.stripe import StripeStandIn, Trouble
from tests.standins.stripe_state import DAY
from tests.standins.wire import Reply, Seen, json_reply, serving


@asynccontextmanager
async def opened(url: str, *, key: str = "sk_test_1", clock: Callable[[], float] = time.time) -> AsyncIterator[Stripe]:
    async with open_stripe(Settings(stripe_secret_key=key, stripe_api_url=url), clock=clock) as stripe:
        assert stripe is not None
        yield stripe


@pytest.mark.parametrize("trouble", ["refuse", "lose", "close"])
async def test_a_call_is_repeated_once_with_the_same_key(
    stripe: Stripe, standin: StripeStandIn, trouble: Trouble
) -> None:
    account_id = new_account_id()
    standin.troubles.append(("POST /v1/customers", trouble))
    customer_id = await stripe.find_or_create_customer(account_id, "a@example.com")
    made = [each["id"] for each in standin.of("customer") if each["metadata"] == {"account_id": account_id}]
    assert made == [customer_id]


@pytest.mark.parametrize(("trouble", "calls"), [("refuse", 2), ("lose", 2), ("close", 2), ("limit", 1)])
async def test_a_call_that_fails_twice_is_unavailable(
    stripe: Stripe, standin: StripeStandIn, trouble: Trouble, calls: int
) -> None:
    standin.troubles.extend([("GET /v1/invoices", trouble)] * calls)
    with pytest.raises(StripeUnavailable):
        await stripe.invoice("in_1")
    assert len(standin.seen) == calls


def _make_a_customer(stripe: Stripe, account_id: str, _at: datetime) -> Awaitable[object]:
    return stripe.find_or_create_customer(account_id, "a@example.com")


def _make_a_price(stripe: Stripe, account_id: str, _at: datetime) -> Awaitable[object]:
    return stripe.sync([PlanPrice(account_id, "Title", 10_000_000)], "USD", webhook_url=None)


async def _report_an_hour(stripe: Stripe, account_id: str, at: datetime) -> None:
    customer_id = await stripe.find_or_create_customer(account_id, "a@example.com")
    await stripe.send_meter_event(customer_id=customer_id, identifier=account_id, value=7, at=at)


@pytest.mark.usefixtures("stripe")
@pytest.mark.parametrize(
    ("path", "call"),
    [("customers", _make_a_customer), ("prices", _make_a_price), ("billing/meter_events", _report_an_hour)],
)
async def test_a_failure_that_stripe_keeps_for_a_day_is_tried_anew_with_the_key_of_ten_minutes_later(
    standin: StripeStandIn, path: str, call: Callable[[Stripe, str, datetime], Awaitable[object]]
) -> None:
    account_id, clock, at = new_account_id(), Clock(1_000_000.0), datetime.fromtimestamp(standin.now() - 3600, UTC)
    standin.troubles.append((f"POST /v1/{path}", "fail"))
    async with opened(standin.url, key=standin.key, clock=clock) as other:
        for _ in range(2):
            with pytest.raises(StripeUnavailable):
                await call(other, account_id, at)
        clock.now += 600
        await call(other, account_id, at)


async def test_a_report_whose_answers_are_lost_is_counted_once(stripe: Stripe, standin: StripeStandIn) -> None:
    customer_id = await new_customer(stripe)
    hour = datetime.fromtimestamp((standin.now() // 3600 - 1) * 3600, UTC)
    send = partial(stripe.send_meter_event, customer_id=customer_id, identifier=f"{customer_id}:hour", value=7, at=hour)
    standin.troubles.extend([("POST /v1/billing/meter_events", "lose")] * 2)
    with pytest.raises(StripeUnavailable):
        await send()
    await send()
    assert await stripe.meter_total(customer_id, hour) == 7
    standin.advance(DAY + 60)
    await send()
    assert await stripe.meter_total(customer_id, hour) == 14, "Stripe forgets identifiers: do not send after a day"


async def test_an_event_that_stripe_has_already_is_no_error(stripe: Stripe, standin: StripeStandIn) -> None:
    """The key of the call is another one, as after a day in which Stripe has forgotten that and not the identifier."""
    hour = datetime.fromtimestamp((standin.now() // 3600 - 1) * 3600, UTC)
    customer_id = await new_customer(stripe)
    for value in (7, 8):
        await stripe.send_meter_event(customer_id=customer_id, identifier=f"{customer_id}:1", value=value, at=hour)
    assert await stripe.meter_total(customer_id, hour) == 7
    for code, is_there in (("duplicate_meter_event", True), ("timestamp_too_far_in_past", False)):
        reply = json_reply({"error": {"type": "invalid_request_error", "code": code}}, status=400)
        async with serving(partial(_always, reply)) as url, opened(url) as other:
            send = other.send_meter_event(customer_id="cus_1", identifier="1", value=1, at=hour)
            if is_there:
                await send
            else:
                with pytest.raises(StripeRefused, match=code):
                    await send


def _always(reply: Reply, _seen: Seen) -> Reply:
    return reply


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"<html>words of a proxy</html>", 200),
        Reply(b"<html>words of a proxy</html>", 502),
        Reply(b"", 307, {"Location": "http://127.0.0.1:9/"}),
        json_reply({"error": {"type": "invalid_request_error", "code": "lock_timeout"}}, status=409),
        Reply(b'{"id": "in_1"', 200, cut_after=5),
    ],
    ids=["no JSON", "a proxy's error", "a redirect", "a conflict", "cut off"],
)
async def test_what_is_no_answer_of_stripes_is_unavailable(monkeypatch: pytest.MonkeyPatch, reply: Reply) -> None:
    async def sleep_async(_transport: Transport, _seconds: float) -> None:
        pass

    monkeypatch.setattr(Transport, "sleep_async", sleep_async)
    async with serving(lambda _seen: reply) as url, opened(url) as stripe:
        with pytest.raises(StripeUnavailable):
            await stripe.invoice("in_1")


@pytest.mark.parametrize(
    "reply", [Reply(gate=asyncio.Event()), Reply(b"{", is_stuck=True), Reply(b"{" * 9999, is_endless=True)]
)
async def test_a_call_ends_in_time_if_its_answer_never_does(reply: Reply) -> None:
    async with serving(lambda _seen: reply) as url:
        transport = Transport(Egress(), seconds=0.05)
        with pytest.raises(APIConnectionError) as failure:
            await transport.request_async("get", f"{url}/v1/invoices/in_1", {})
        assert failure.value.should_retry
        await transport.close_async()


async def test_proxies_of_the_environment_are_not_used(standin: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with opened(standin.url, key=standin.key) as stripe:
        await stripe.check()


async def test_neither_errors_nor_lines_have_a_secret(standin: StripeStandIn, caplog: pytest.LogCaptureFixture) -> None:
    """What a call sends and what Stripe answers in full stay out of both: a key, a new webhook secret, an email."""
    key, email = f"sk_test_{secrets.token_hex(12)}", f"{secrets.token_hex(8)}@example.com"

    def answer(seen: Seen) -> Reply:
        said = f"{seen.headers['authorization']} {seen.body.decode()} {email}"
        return json_reply({"error": {"type": "invalid_request_error", "code": "odd", "message": said}}, status=400)

    told = []
    with caplog.at_level(logging.DEBUG):
        async with serving(answer) as url, opened(url, key=key) as stripe:
            with pytest.raises(StripeRefused) as refusal:
                await stripe.find_or_create_customer("acc_1", email)
            told.append("".join(traceback.format_exception(refusal.value)))
        async with opened(standin.url, key=standin.key) as stripe:
            synced = await stripe.sync([], "USD", webhook_url=f"https://{secrets.token_hex(4)}.example/")
    assert synced.webhook_secret
    told += [repr(stripe), repr(Settings(stripe_secret_key=key)), *(record.getMessage() for record in caplog.records)]
    told += [str(vars(record)) for record in caplog.records]
    for secret in (key, standin.key, email, synced.webhook_secret):
        assert not [each for each in told if secret in each]
    assert "odd" in told[0]
