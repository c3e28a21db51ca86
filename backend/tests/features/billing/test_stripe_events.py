"""What Stripe reports: each payment, refund and dispute is entered once, whatever arrives in which order, how often."""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import permutations

import pytest
from app.payments import WEBHOOK_PATH, StripeEvent
from tests.features.billing.shop import SECRETS, Buyer, Shop
from tests.harness import until_waited_for

_FEW = 3


async def test_a_paid_top_up_is_credited_once_however_often_and_at_once_it_is_reported(buyer: Buyer) -> None:
    payment = await buyer.top_up("10", tax=210)
    assert await buyer.entries() == []
    await buyer.shop.deliver(times=10)
    assert await buyer.entries() == [("10", payment)]
    assert (await buyer.billing())["credit"] == "10"


async def test_a_top_up_is_credited_when_its_money_has_come_and_not_before(shop: Shop, buyer: Buyer) -> None:
    coming, failing = [await buyer.checkout("/top-ups", amount="10") for _ in range(2)]
    for session in (coming, failing):
        shop.stripe.pay(session, is_settled=False)
    await shop.deliver()
    assert await buyer.entries() == []
    payment = shop.stripe.settle(coming, is_paid=True)["payment_intent"]
    shop.stripe.settle(failing, is_paid=False)
    await shop.deliver()
    assert await buyer.entries() == [("10", payment)]


def _refund_a_third_then_have_it_fail(shop: Shop, payment: str) -> dict[str, str]:
    refund = shop.stripe.refund(payment, 403, status="pending")["id"]
    shop.stripe.change_refund(refund, "failed")
    return {refund: "-3.330578", f"{refund}:returned": "3.330578"}


def _refund_all(shop: Shop, payment: str) -> dict[str, str]:
    return {shop.stripe.refund(payment)["id"]: "-10"}


def _lose_a_dispute(shop: Shop, payment: str) -> dict[str, str]:
    dispute = shop.stripe.dispute(payment)["id"]
    shop.stripe.close_dispute(dispute, is_won=False)
    return {dispute: "-10"}


def _win_a_dispute(shop: Shop, payment: str) -> dict[str, str]:
    dispute = shop.stripe.dispute(payment)["id"]
    shop.stripe.close_dispute(dispute, is_won=True)
    return {dispute: "-10", f"{dispute}:returned": "10"}


def _answer_an_inquiry(shop: Shop, payment: str) -> dict[str, str]:
    shop.stripe.dispute(payment, status="warning_needs_response")
    return {}


@pytest.mark.parametrize(
    "happens",
    [_refund_a_third_then_have_it_fail, _refund_all, _lose_a_dispute, _win_a_dispute, _answer_an_inquiry],
    ids=lambda happens: happens.__name__.strip("_"),
)
async def test_what_is_taken_back_of_a_payment_is_entered_once_in_every_order_of_events(
    shop: Shop, buyer: Buyer, happens: Callable[[Shop, str], dict[str, str]]
) -> None:
    for order in permutations(range(_FEW)):
        payment = await buyer.top_up("10", tax=210)
        expected = {payment: "10"} | happens(shop, payment)
        _, completed, first, *_, last = [*shop.stripe.events, shop.stripe.events[-1]]
        shop.stripe.events.clear()
        await shop.deliver(*((completed, first, last)[index] for index in order))
        entered = {reference: amount for amount, reference in await buyer.entries()}
        assert {each: entered.pop(each, None) for each in expected} == expected
        assert not [each for each in entered if payment in each]


async def test_events_of_a_payment_ten_times_at_once_are_entered_once(shop: Shop, buyer: Buyer) -> None:
    payment = await buyer.top_up("10")
    _refund_a_third_then_have_it_fail(shop, payment)
    _win_a_dispute(shop, payment)
    _, completed, refunded, *_, reinstated = shop.stripe.events
    answers = await asyncio.gather(*map(shop.send, [completed, refunded, reinstated] * 10))
    assert {answer.status_code for answer in answers} == {200}
    assert (await buyer.billing())["credit"] == "10"
    assert len(await buyer.entries()) == 5


async def test_a_refund_of_spent_credit_takes_the_account_below_zero(shop: Shop, buyer: Buyer) -> None:
    payment = await buyer.top_up("10")
    spent = "update balances set charged = 4000000 where account_id = $1"
    await shop.database.execute(spent, buyer.account.account_id)
    _refund_all(shop, payment)
    await shop.deliver()
    assert (await buyer.billing())["available"] == "-4"


async def test_a_handler_that_is_killed_before_it_commits_answers_503_and_the_repetition_enters_the_payment(
    shop: Shop, buyer: Buyer
) -> None:
    payment = await buyer.top_up("10")
    completed = next(each for each in shop.stripe.events if each["type"] == "checkout.session.completed")
    holder = "select pg_backend_pid() from balances where account_id = $1 for update"
    async with shop.database.transaction():
        pid = await shop.database.fetchval(holder, buyer.account.account_id)
        sending = asyncio.create_task(shop.send(completed))
        await until_waited_for(shop.database)
        kill = "select pg_terminate_backend(pid) from pg_stat_activity where $1 = any(pg_blocking_pids(pid))"
        await shop.database.execute(kill, pid)
        assert (await sending).status_code == 503
    assert await buyer.entries() == []
    assert (await shop.send(completed)).status_code == 200
    forget = "update stripe_events set handled_at = null where id = $1"  # killed between its two commits
    await shop.database.execute(forget, completed["id"])
    assert (await shop.send(completed)).status_code == 200
    assert await buyer.entries() == [("10", payment)]


async def test_an_event_is_taken_with_either_secret_and_for_300_seconds(shop: Shop, buyer: Buyer) -> None:
    await buyer.top_up("10")
    [event, *_] = shop.stripe.events
    now = int(time.time())
    refused = [
        await shop.send(event, secret="whsec_another"),
        await shop.send(event, at=now - 330),
        await shop.client.post(WEBHOOK_PATH, json=event),
        await shop.client.post(WEBHOOK_PATH, json=event, headers={b"Stripe-Signature": b"t=,v1=\xff"}),
    ]
    assert [(each.status_code, each.json()["code"]) for each in refused] == [(400, "event_refused")] * len(refused)
    assert await shop.database.fetchval("select count(*) from stripe_events where id = $1", event["id"]) == 0
    for secret in SECRETS:
        assert (await shop.send(event, secret=secret, at=now - 270)).status_code == 200


async def test_an_event_of_the_other_mode_is_refused(shop: Shop, buyer: Buyer) -> None:
    await buyer.top_up("10")
    for event in shop.stripe.events:
        answer = await shop.send(event | {"livemode": True})
        assert (answer.status_code, answer.json()["code"]) == (400, "event_refused")
    assert await buyer.entries() == []


async def test_an_event_without_consequences_is_recorded_and_answered_with_200(shop: Shop, buyer: Buyer) -> None:
    payment = await buyer.top_up("10")
    succeeded = next(each for each in shop.stripe.events if each["type"] == "payment_intent.succeeded")
    assert (await shop.send(succeeded)).status_code == 200
    row = "select type from stripe_events where id = $1 and handled_at is not null"
    assert await shop.database.fetchval(row, succeeded["id"]) == "payment_intent.succeeded"
    assert await buyer.entries() == [], payment


async def test_what_no_webhook_has_brought_is_found_by_the_sweep_and_tried_again_if_it_fails(
    shop: Shop, buyer: Buyer
) -> None:
    payment = await buyer.top_up("10")
    expected = {payment: "10"} | _refund_all(shop, payment)
    shop.stripe.events.clear()
    for currency, entered in (("eur", {}), ("usd", expected)):
        for each in expected:
            shop.stripe.objects[each]["currency"] = currency
        await shop.sweep()
        assert {reference: amount for amount, reference in await buyer.entries()} == entered


async def test_what_was_missed_is_found_among_any_number_of_events(
    shop: Shop, buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await buyer.top_up("10")
    missed = [StripeEvent(each["id"], each["type"], each["data"]["object"]["id"]) for each in shop.stripe.events]
    handled = [StripeEvent(f"evt_{number}", "invoice.paid", "in_1") for number in range(40_000)]
    row = "insert into stripe_events (id, type, handled_at) select unnest($1::text[]), 'invoice.paid', now()"
    await shop.database.execute(row, [each.id for each in handled])

    async def events_since(*_: object, **__: object) -> Sequence[StripeEvent]:
        return [*handled, *missed]

    monkeypatch.setattr(shop.sweeper.purchases.stripe, "events_since", events_since)
    await shop.sweep()
    assert await buyer.entries() == [("10", payment)]


@pytest.mark.parametrize("top_up", ["yes", "1.5", "-5", "0", "5" * 30, "\u0665"])
async def test_a_payment_whose_metadata_another_program_has_written_is_no_top_up(
    shop: Shop, buyer: Buyer, top_up: str
) -> None:
    payment = await buyer.top_up("10")
    shop.stripe.objects[payment]["metadata"]["top_up"] = top_up
    await shop.deliver()
    assert await buyer.entries() == []


async def test_an_event_that_cannot_be_handled_keeps_no_other_from_being(shop: Shop, buyer: Buyer) -> None:
    session = shop.stripe.pay(await buyer.checkout("/subscription", plan="starter"))
    shop.stripe.objects[session["subscription"]]["items"]["data"] = []
    other = await shop.buyer()
    payment = await other.top_up("10")
    await shop.sweep()
    assert await other.entries() == [("10", payment)]
