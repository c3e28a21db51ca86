"""The calls of one request, over all its images: how many there may be, when none is sent, and what they may cost."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ssl import SSLError
from typing import NoReturn

import pytest
from app.core.errors import ApiError
from app.providers import (
    CallBudget,
    NoImageReturned,
    Order,
    Picture,
    Provider,
    ProviderFailed,
    ProviderUnavailable,
    Size,
)
from tests.harness import looks
from tests.providers.drawing import Behind, banana, soon
from tests.providers.ways import BY_NAME, Dialect
from tests.standins import gemini, openai
from tests.standins.wire import Reply


async def test_a_failure_that_cost_nothing_is_tried_again_and_not_told(behind: Behind) -> None:
    behind.fail("429", "503")
    order = banana()
    assert (await behind.open().draw(order, deadline=soon())).media_type == "image/png"
    assert (len(behind.stand_in.seen), order.budget.may_have_been_paid) == (3, True)


async def test_a_wait_that_a_503_tells_is_waited_or_told(behind: Behind) -> None:
    told = {
        "gemini": gemini.failed(503, "UNAVAILABLE", {"retryDelay": "300s"}),
        "openai": openai.failed(503, "server_overloaded", headers={"Retry-After": "300"}),
    }
    behind.stand_in.faults.append(told[behind.dialect])
    with pytest.raises(ApiError) as raised:
        await behind.open().draw(banana(), deadline=soon())
    assert (raised.value.headers, len(behind.stand_in.seen)) == ({"Retry-After": "300"}, 1)


async def test_an_answer_without_an_image_is_repeated_once_for_a_request_and_counts_as_a_try(behind: Behind) -> None:
    nothing = "200, no image and no reason"
    behind.fail(nothing)
    await behind.open().draw(banana(), deadline=soon())
    behind.fail("503", nothing)
    with pytest.raises(NoImageReturned):
        await behind.open().draw(banana(), deadline=soon())
    assert len(behind.stand_in.seen) == 2 + 2
    budget = CallBudget()
    behind.stand_in.seen.clear()
    behind.fail(*[nothing] * 9)
    outcomes = await draw_all(behind.open(), budget, count=3)
    assert [type(outcome) for outcome in outcomes] == [NoImageReturned] * 3
    assert len(behind.stand_in.seen) == 3 + 1


async def test_the_images_of_a_request_share_their_repeats(behind: Behind) -> None:
    behind.fail(*["503"] * 99)
    outcomes = await draw_all(behind.open(tries_max=4), CallBudget(), count=10)
    assert len(behind.stand_in.seen) == 10 + 3
    assert not any(isinstance(outcome, Picture) for outcome in outcomes)


async def draw_all(provider: Provider, budget: CallBudget, *, count: int) -> Sequence[Picture | BaseException]:
    order = Order("A cute banana", Size(1024, 1024), budget)
    return await asyncio.gather(*(provider.draw(order, deadline=soon()) for _ in range(count)), return_exceptions=True)


async def test_a_call_that_cost_nothing_does_not_make_another_one_that_did_forgotten(behind: Behind) -> None:
    order = banana()
    behind.fail("200, no image and no reason", "400")
    with pytest.raises(ProviderFailed) as raised:
        await behind.open().draw(order, deadline=soon())
    assert raised.value.may_have_been_paid
    behind.fail("400")
    with pytest.raises(ProviderFailed) as raised:
        await behind.open().draw(order, deadline=soon())
    assert not raised.value.may_have_been_paid, "this image was refused"
    assert order.budget.may_have_been_paid, "its request was not"


async def test_once_an_image_has_failed_for_good_no_call_of_its_request_is_sent(behind: Behind) -> None:
    order, idle = banana(), behind.open()
    await idle.draw(order, deadline=soon())
    order.budget.close()
    for provider in (idle, behind.open()):  # on a connection that is there, and on a new one
        with pytest.raises(ProviderFailed) as raised:
            await provider.draw(order, deadline=soon())
        assert not raised.value.may_have_been_paid
    assert len(behind.stand_in.seen) == 1
    assert (await idle.draw(banana(), deadline=soon())).media_type == "image/png"


async def test_a_repeat_is_not_waited_for_once_another_image_has_failed_for_good(behind: Behind) -> None:
    order, gate = banana(), asyncio.Event()
    behind.stand_in.faults.append(replace(BY_NAME["503"].reply(behind.dialect), gate=gate))
    drawing = asyncio.create_task(behind.open().draw(order, deadline=soon()))
    await until_called(behind)
    order.budget.close()
    gate.set()
    with pytest.raises(ProviderUnavailable):
        await drawing
    assert len(behind.stand_in.seen) == 1


async def until_called(behind: Behind) -> None:
    for _ in looks():
        if behind.stand_in.seen:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is not called")


async def test_a_call_that_is_given_up_after_it_was_sent_may_have_been_paid(behind: Behind) -> None:
    order, provider = banana(), behind.open()
    behind.fail("silence until the deadline")
    drawing = asyncio.create_task(provider.draw(order, deadline=soon()))
    await until_called(behind)
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    assert order.budget.may_have_been_paid


async def test_a_broken_record_of_tls_is_a_lost_connection(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_arguments: object, **_named: object) -> NoReturn:
        raise SSLError

    monkeypatch.setattr("httpcore2._backends.anyio.AnyIOStream.read", fail)
    with pytest.raises(ProviderFailed) as raised:
        await behind.open().draw(banana(), deadline=soon())
    assert raised.value.may_have_been_paid


async def test_a_connection_that_the_provider_has_closed_meanwhile_costs_nothing(behind: Behind) -> None:
    provider, closed = behind.open(), asyncio.Event()
    content = _drawn(behind.dialect)
    behind.stand_in.faults.append(Reply(content, closed_after=closed))
    await provider.draw(banana(), deadline=soon())
    await closed.wait()
    assert (await provider.draw(banana(), deadline=soon())).media_type == "image/png"
    assert len(behind.stand_in.seen) == 2


def _drawn(dialect: Dialect) -> bytes:
    picture = gemini.picture_bytes(1024, 1024)
    return (gemini.drawn(picture) if dialect == "gemini" else openai.in_place(picture)).content
