"""For every failure of a provider: a call that may have been paid is not repeated, and the error says so and why."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO

import pytest
from app.core.errors import ApiError
from app.providers import (
    ContentRefused,
    NoFreeSlot,
    ProviderError,
    ProviderFailed,
    ProviderTimeout,
    ProviderUnavailable,
    ProviderUnusable,
)
from app.providers.gemini import GeminiProvider
from app.providers.responses import REQUEST_ID_HEADERS
from tests.providers.failures import BY_NAME, CASES, Failure, provider_url
from tests.providers.remote import RED_PNG, RemoteSetup, banana, soon
from tests.standins.gemini import GeminiStandIn, candidate
from tests.standins.wire import Reply


@pytest.mark.parametrize(
    ("remote", "failure"), CASES, indirect=["remote"], ids=[f"{dialect}-{failure.name}" for dialect, failure in CASES]
)
async def test_each_failure_costs_its_number_of_calls_and_its_error_says_what_failed_and_whether_it_may_have_been_paid(
    remote: RemoteSetup, failure: Failure
) -> None:
    remote.stand_in.faults.extend([failure.reply(remote.dialect)] * 9)
    request, deadline = banana(), soon()
    if failure.place == "full":
        deadline = asyncio.get_running_loop().time() + 0.1  # no connection is made before it on any machine
    async with provider_url(failure.place) as url:
        provider = remote.open(url, first_byte_seconds=0.05) if failure.is_silent else remote.open(url)
        with pytest.raises(ProviderError) as raised:
            await provider.draw(request, deadline=deadline)
    error, paid_calls = raised.value, failure.calls if failure.may_have_been_paid else 0
    assert (error.code, error.failure) == (failure.code, failure.failure)
    assert (len(remote.stand_in.seen), error.may_have_been_paid) == (failure.calls, failure.may_have_been_paid)
    assert (request.tally.calls, request.tally.paid_calls) == (failure.calls, paid_calls)
    assert request.budget.may_have_been_paid is failure.may_have_been_paid


CAME: Mapping[str, Mapping[str, object]] = {
    "200, HTML": {"status": 200, "media_type": "text/html", "kind": "html"},
    "200, empty": {"status": 200, "media_type": "none", "kind": "empty", "bytes": 0},
    "200, gzip that is none": {"kind": "compressed", "encoding": "gzip"},
    "200, an encoding that is not known": {"kind": "compressed", "encoding": "other"},
    "200, JSON that is cut off": {"kind": "json"},
    "200, more than an answer may have": {"status": 200, "kind": "other"},
    "GIF": {"media_type": "application/json", "kind": "json", "image_kind": "gif"},
    "APNG": {"image_kind": "png"},
    "animated WebP": {"image_kind": "webp"},
    "no image": {"image_kind": "other", "image_bytes": len(b"words")},
    "an image of another shape": {"image_kind": "png"},
    "502 of a gateway": {"status": 502, "media_type": "text/html", "kind": "html"},
    "500": {"status": 500, "media_type": "application/json", "kind": "json"},
    "connection reset": {"failure": "ReadError", "reason": "lost"},
    "connection refused": {"failure": "ConnectError", "reason": "refused"},
    "TLS fails": {"failure": "ConnectError", "reason": "tls"},
}


@pytest.mark.parametrize("name", CAME)
async def test_the_log_describes_the_response(remote: RemoteSetup, log: StringIO, name: str) -> None:
    failure = BY_NAME[name]
    remote.fail(name)
    async with provider_url(failure.place) as url:
        with pytest.raises(ApiError):
            await remote.open(url, attempts_max=1).draw(banana(), deadline=soon())
    [line] = [json.loads(line) for line in log.getvalue().splitlines() if '"provider_' in line]
    assert line.items() >= CAME[name].items()


async def test_an_error_that_only_the_operator_can_mend_has_the_status_and_a_reason(remote: RemoteSetup) -> None:
    remote.fail("200, the error 401")
    with pytest.raises(ProviderUnusable) as raised:
        await remote.open(attempts_max=1).draw(banana(), deadline=soon())
    assert (raised.value.provider_status, raised.value.reason) == (200, "credentials, permission or model")


@pytest.mark.parametrize("header", REQUEST_ID_HEADERS)
async def test_an_image_and_an_error_have_the_id_that_the_provider_gave_the_call(
    remote: RemoteSetup, header: str
) -> None:
    provider, headers = remote.open(attempts_max=1), {header.title(): "req_0123"}
    refused = BY_NAME["400"].reply(remote.dialect)
    for reply in (Reply(RED_PNG), refused, Reply(RED_PNG, cut_after=9), Reply(is_closed=True)):
        remote.stand_in.faults.append(replace(reply, headers={**reply.headers, **headers}))
    assert (await provider.draw(banana(), deadline=soon())).provider_request_id == "req_0123"
    for expected in ("req_0123", "req_0123", None):
        with pytest.raises(ProviderFailed) as raised:
            await provider.draw(banana(), deadline=soon())
        assert raised.value.provider_request_id == expected


@pytest.mark.parametrize("text", ["", "a b", "é", "x" * 201])
async def test_a_request_id_of_other_than_200_visible_characters_is_not_kept(remote: RemoteSetup, text: str) -> None:
    remote.stand_in.faults.append(Reply(RED_PNG, headers={"X-Request-Id": text}))
    assert (await remote.open().draw(banana(), deadline=soon())).provider_request_id is None


async def test_geminis_response_id_goes_before_that_of_a_gateway(gemini: GeminiProvider, google: GeminiStandIn) -> None:
    google.faults.append(candidate("IMAGE_SAFETY"))
    with pytest.raises(ContentRefused) as raised:
        await gemini.draw(banana(), deadline=soon())
    drawn = await gemini.draw(banana(), deadline=soon())
    assert (raised.value.provider_request_id, drawn.provider_request_id) == ("r", "r")


async def test_an_image_that_waits_for_a_slot_until_its_deadline_or_finds_no_place_in_line_has_no_slot(
    remote: RemoteSetup,
) -> None:
    provider, gate = remote.open(calls_max=1), asyncio.Event()
    remote.stand_in.faults.append(Reply(RED_PNG, gate=gate))
    drawing = asyncio.create_task(provider.draw(banana(), deadline=soon()))
    await asyncio.sleep(0)
    late = asyncio.create_task(provider.draw(banana(), deadline=asyncio.get_running_loop().time() + 0.05))
    await asyncio.sleep(0)
    with pytest.raises(NoFreeSlot) as refused:
        await provider.draw(banana(), deadline=soon())
    with pytest.raises(ProviderTimeout) as waited:
        await late
    gate.set()
    await drawing
    assert {refused.value.failure, waited.value.failure} == {"no_slot"}


async def test_an_unknown_media_type_is_not_logged(remote: RemoteSetup, log: StringIO) -> None:
    remote.stand_in.faults.append(Reply(b"<canary>", 200, {"Content-Type": "text/canary; canary=canary"}))
    with pytest.raises(ProviderFailed):
        await remote.open().draw(banana(), deadline=soon())
    assert '"media_type": "other"' in log.getvalue()
    assert "canary" not in log.getvalue()


async def test_check_says_of_a_silent_provider_that_it_does_not_answer_in_time(
    remote: RemoteSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.providers.upstream._PROBE_SECONDS", 0.05)
    remote.fail("silence until the deadline")
    with pytest.raises(ProviderUnavailable, match=r"\{base_url\} does not answer in time"):
        await remote.open().check()
