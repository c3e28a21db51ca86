"""For every failure of a provider: a call that may have been paid is not repeated, and the error says so."""

import asyncio
import json
from collections.abc import Mapping
from io import StringIO

import pytest
from app.core.errors import ApiError
from app.providers import ProviderFailed, ProviderUnavailable
from tests.providers.failures import BY_NAME, CASES, Failure, provider_url
from tests.providers.remote import RemoteSetup, banana, soon
from tests.standins.wire import Reply


@pytest.mark.parametrize(
    ("remote", "failure"), CASES, indirect=["remote"], ids=[f"{dialect}-{failure.name}" for dialect, failure in CASES]
)
async def test_each_failure_costs_its_number_of_calls_and_its_error_says_whether_they_may_have_been_paid(
    remote: RemoteSetup, failure: Failure
) -> None:
    remote.stand_in.faults.extend([failure.reply(remote.dialect)] * 9)
    request, deadline = banana(), soon()
    if failure.place == "full":
        deadline = asyncio.get_running_loop().time() + 0.1  # no connection is made before it on any machine
    async with provider_url(failure.place) as url:
        provider = remote.open(url, first_byte_seconds=0.05) if failure.is_silent else remote.open(url)
        with pytest.raises(ApiError) as raised:
            await provider.draw(request, deadline=deadline)
    outcome = (raised.value.code, len(remote.stand_in.seen), raised.value.may_have_been_paid)
    assert outcome == (failure.code, failure.calls, failure.may_have_been_paid)
    assert request.budget.may_have_been_paid is failure.may_have_been_paid


CAME: Mapping[str, Mapping[str, object]] = {
    "200, HTML": {"status": 200, "media_type": "text/html", "kind": "html"},
    "200, empty": {"status": 200, "media_type": "none", "kind": "empty", "bytes": 0},
    "200, gzip that is none": {"kind": "compressed", "encoding": "gzip"},
    "200, an encoding that is not known": {"kind": "compressed", "encoding": "other"},
    "200, the error 401": {"status": 401, "reason": "credentials, permission or model"},
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
    with pytest.raises(ProviderUnavailable, match="_BASE_URL does not answer in time"):
        await remote.open().check()
