"""The calls of one request, over all its images: how many are sent, when none is, and which may have been paid."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ssl import SSLError

import pytest
from app.core.errors import ApiError
from app.providers import (
    CallBudget,
    ContentRefused,
    DrawRequest,
    Image,
    NoImageReturned,
    Provider,
    ProviderError,
    ProviderFailed,
    ProviderUnavailable,
    Size,
)
from app.providers.transport import _Connection
from tests.harness import looks
from tests.providers.failures import BY_NAME, Dialect, provider_url
from tests.providers.remote import RemoteSetup, banana, soon
from tests.standins import gemini, openai
from tests.standins.wire import Reply


async def test_an_unpaid_failure_is_retried_and_hidden_from_the_caller(remote: RemoteSetup) -> None:
    remote.fail("429", "503")
    request = banana()
    assert (await remote.open().draw(request, deadline=soon())).media_type == "image/png"
    assert (len(remote.stand_in.seen), request.budget.may_have_been_paid) == (3, True)


async def test_a_503s_delay_beyond_the_deadline_becomes_retry_after(remote: RemoteSetup) -> None:
    replies = {
        "gemini": gemini.failed(503, "UNAVAILABLE", {"retryDelay": "300s"}),
        "openai": openai.failed(503, "server_overloaded", headers={"Retry-After": "300"}),
    }
    remote.stand_in.faults.append(replies[remote.dialect])
    with pytest.raises(ApiError) as raised:
        await remote.open().draw(banana(), deadline=soon())
    assert (raised.value.headers, len(remote.stand_in.seen)) == ({"Retry-After": "300"}, 1)


async def test_a_response_without_an_image_is_repeated_once_for_each_request_and_counts_as_an_attempt(
    remote: RemoteSetup,
) -> None:
    nothing = "200, no image and no reason"
    remote.fail(nothing)
    await remote.open().draw(banana(), deadline=soon())
    remote.fail("503", nothing)
    with pytest.raises(NoImageReturned):
        await remote.open().draw(banana(), deadline=soon())
    assert len(remote.stand_in.seen) == 2 + 2
    budget = CallBudget()
    remote.stand_in.seen.clear()
    remote.fail(*[nothing] * 9)
    outcomes = await draw_all(remote.open(), budget, count=3)
    assert [type(outcome) for outcome in outcomes] == [NoImageReturned] * 3
    assert len(remote.stand_in.seen) == 3 + 1


@pytest.mark.parametrize("name", ["429", "503", "200, the error 503", "connection refused", "TLS fails"])
async def test_a_failure_that_costs_nothing_is_left_to_the_caller_where_it_says_so(
    remote: RemoteSetup, name: str
) -> None:
    remote.fail(*[name] * 3)
    request = replace(banana(), leave_unpaid_failures=True)
    async with provider_url(BY_NAME[name].place) as url:
        with pytest.raises(ProviderError) as raised:
            await remote.open(url).draw(request, deadline=soon())
    assert (raised.value.failure, len(remote.stand_in.seen)) == (BY_NAME[name].failure, min(1, BY_NAME[name].calls))
    assert request.budget.repeats.count == 0


async def test_a_response_without_an_image_is_repeated_also_where_unpaid_failures_are_left_to_the_caller(
    remote: RemoteSetup,
) -> None:
    remote.fail("200, no image and no reason")
    request = replace(banana(), leave_unpaid_failures=True)
    await remote.open().draw(request, deadline=soon())
    assert (request.tally.calls, request.tally.paid_calls) == (2, 2)


async def test_a_tally_counts_each_call_and_those_that_may_have_been_paid_over_all_drawings_of_its_image(
    remote: RemoteSetup,
) -> None:
    request = banana()
    remote.fail("200, no image and no reason", "400")
    with pytest.raises(ProviderFailed):
        await remote.open().draw(request, deadline=soon())
    assert (request.tally.calls, request.tally.paid_calls) == (2, 1)
    await remote.open().draw(request, deadline=soon())
    assert (request.tally.calls, request.tally.paid_calls) == (3, 2)


async def test_the_images_of_a_request_share_their_repeats(remote: RemoteSetup) -> None:
    remote.fail(*["503"] * 99)
    outcomes = await draw_all(remote.open(attempts_max=4), CallBudget(), count=10)
    assert len(remote.stand_in.seen) == 10 + 3
    assert not any(isinstance(outcome, Image) for outcome in outcomes)


async def draw_all(provider: Provider, budget: CallBudget, *, count: int) -> Sequence[Image | BaseException]:
    request = DrawRequest("A cute banana", Size(1024, 1024), budget=budget)
    return await asyncio.gather(
        *(provider.draw(request, deadline=soon()) for _ in range(count)), return_exceptions=True
    )


async def test_an_unpaid_call_leaves_an_earlier_one_marked_as_paid(remote: RemoteSetup) -> None:
    request = banana()
    remote.fail("200, no image and no reason", "400")
    with pytest.raises(ProviderFailed) as raised:
        await remote.open().draw(request, deadline=soon())
    assert raised.value.may_have_been_paid
    remote.fail("400")
    with pytest.raises(ProviderFailed) as raised:
        await remote.open().draw(request, deadline=soon())
    assert not raised.value.may_have_been_paid, "this image was refused"
    assert request.budget.may_have_been_paid, "its request was not"


async def test_after_an_image_has_failed_for_good_no_call_of_its_request_is_sent(remote: RemoteSetup) -> None:
    request, idle = banana(), remote.open()
    await idle.draw(request, deadline=soon())
    request.budget.close(ContentRefused())
    for provider in (idle, remote.open()):  # on a connection that is there, and on a new one
        with pytest.raises(ContentRefused) as raised:
            await provider.draw(request, deadline=soon())
        assert not raised.value.may_have_been_paid
    assert len(remote.stand_in.seen) == 1
    assert (await idle.draw(banana(), deadline=soon())).media_type == "image/png"


async def test_no_repeat_is_awaited_after_another_image_has_failed_for_good(remote: RemoteSetup) -> None:
    request, gate = banana(), asyncio.Event()
    remote.stand_in.faults.append(replace(BY_NAME["503"].reply(remote.dialect), gate=gate))
    drawing = asyncio.create_task(remote.open().draw(request, deadline=soon()))
    await until_called(remote)
    request.budget.close(ContentRefused())
    gate.set()
    with pytest.raises(ProviderUnavailable):
        await drawing
    assert len(remote.stand_in.seen) == 1


async def until_called(remote: RemoteSetup) -> None:
    for _ in looks():
        if remote.stand_in.seen:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is not called")


async def test_a_call_cancelled_after_it_was_sent_may_have_been_paid(remote: RemoteSetup) -> None:
    request, provider = banana(), remote.open()
    remote.fail("silence until the deadline")
    drawing = asyncio.create_task(provider.draw(request, deadline=soon()))
    await until_called(remote)
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    assert request.budget.may_have_been_paid
    assert request.tally.paid_calls == 1


async def test_a_broken_tls_record_is_a_lost_connection(remote: RemoteSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(connection: _Connection, _length: int) -> None:
        connection.abort()
        connection.connection_lost(SSLError())

    monkeypatch.setattr(_Connection, "buffer_updated", receive)
    with pytest.raises(ProviderFailed) as raised:
        await remote.open().draw(banana(), deadline=soon())
    assert raised.value.may_have_been_paid


async def test_an_idle_connection_closed_by_the_provider_is_replaced_without_a_paid_call(remote: RemoteSetup) -> None:
    provider, closed = remote.open(), asyncio.Event()
    content = _drawn(remote.dialect)
    remote.stand_in.faults.append(Reply(content, closed_after=closed))
    await provider.draw(banana(), deadline=soon())
    await closed.wait()
    assert (await provider.draw(banana(), deadline=soon())).media_type == "image/png"
    assert len(remote.stand_in.seen) == 2


def _drawn(dialect: Dialect) -> bytes:
    image = gemini.image_bytes(1024, 1024)
    return (gemini.drawn(image) if dialect == "gemini" else openai.in_place(image)).content
