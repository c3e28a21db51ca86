"""When Gemini throttles, falls silent or is too slow: the waits, the limits and the errors."""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from app.core.errors import ApiError, Unavailable
from app.core.pool import BoundedPool
from app.providers import (
    ContentRefused,
    DrawRequest,
    ProviderFailed,
    ProviderTimeout,
    ProviderUnavailable,
    ProviderUnusable,
    Size,
)
from app.providers.gemini import GeminiProvider
from tests.providers.failures import CASES, Failure
from tests.providers.remote import KEY, RED_PNG, GeminiWithin, OpenUpstream, RemoteSetup, banana, gemini_provider, soon
from tests.standins.gemini import GeminiStandIn, blocked_prompt, drawn, failed, html, image_bytes, slow, throttled
from tests.standins.wire import Reply

ANSWERED = [(dialect, failure) for dialect, failure in CASES if failure.place == "there"]


async def test_an_image_of_another_shape_is_neither_distorted_nor_paid_for_again(
    gemini: GeminiProvider, google: GeminiStandIn
) -> None:
    google.faults.extend([drawn(image_bytes(1024, 1024))] * 3)
    with pytest.raises(ProviderFailed):
        await gemini.draw(DrawRequest("A cute banana", Size(1920, 1080)), deadline=soon())
    assert len(google.seen) == 1


async def test_a_providers_delay_before_the_deadline_is_waited_for(
    gemini: GeminiProvider, google: GeminiStandIn
) -> None:
    google.faults.append(throttled(retry_delay="0.01s"))
    assert (await gemini.draw(banana(), deadline=soon())).media_type == "image/png"


async def test_a_providers_delay_beyond_the_deadline_becomes_retry_after_at_once(
    gemini: GeminiProvider, google: GeminiStandIn
) -> None:
    google.faults.append(throttled(retry_delay="41.2s"))
    with pytest.raises(Unavailable) as raised:
        await gemini.draw(banana(), deadline=soon())
    assert raised.value.headers == {"Retry-After": "42"}
    assert len(google.seen) == 1


@pytest.mark.parametrize("delay", [None, "0.001s", "soon", "1e9s", "-1s"])
async def test_a_provider_that_keeps_throttling_is_called_three_times(
    gemini: GeminiProvider, google: GeminiStandIn, delay: str | None
) -> None:
    google.faults.extend([throttled(retry_delay=delay)] * 9)
    with pytest.raises(Unavailable) as raised:
        await gemini.draw(banana(), deadline=soon())
    assert int(raised.value.headers["Retry-After"]) >= 1
    assert len(google.seen) == 3


@pytest.mark.parametrize(
    "unusable",
    [
        throttled(retry_delay="0.01s", quota_id="GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        failed(401, "UNAUTHENTICATED"),
        failed(403, "PERMISSION_DENIED"),
        failed(404, "NOT_FOUND"),
        failed(400, "FAILED_PRECONDITION"),
        failed(400, "INVALID_ARGUMENT", {"reason": "API_KEY_INVALID"}),
    ],
)
async def test_an_error_for_the_operator_is_reported_and_not_retried(
    gemini: GeminiProvider, google: GeminiStandIn, unusable: Reply
) -> None:
    google.faults.append(unusable)
    with pytest.raises(ProviderUnavailable):
        await gemini.draw(banana(), deadline=soon())
    assert len(google.seen) == 1


async def test_a_wrong_key_and_an_unknown_model_make_the_provider_unavailable(
    google_url: str, open_upstream: OpenUpstream, pool: BoundedPool
) -> None:
    for wrong in ({"key": "another"}, {"model": "gemini-0"}):
        with pytest.raises(ProviderUnavailable):
            await gemini_provider(open_upstream(), pool, google_url, **wrong).draw(banana(), deadline=soon())


@pytest.mark.parametrize("status", [400, 409, 302, 307])
async def test_a_final_status_is_not_retried(gemini: GeminiProvider, google: GeminiStandIn, status: int) -> None:
    google.faults.append(Reply(b"{}", status, {"Location": "/v1/models/gemini-2.5-flash-image:generateContent"}))
    with pytest.raises(ProviderFailed):
        await gemini.draw(banana(), deadline=soon())
    assert len(google.seen) == 1


async def test_silence_until_the_deadline_is_a_timeout(gemini: GeminiProvider, google: GeminiStandIn) -> None:
    google.faults.append(slow(asyncio.Event()))
    with pytest.raises(ProviderTimeout):
        await gemini.draw(banana(), deadline=asyncio.get_running_loop().time() + 0.05)


@pytest.mark.parametrize("silent", [Reply(delay_seconds=60), Reply(b" ", is_stuck=True)])
async def test_a_silent_provider_is_not_called_again_because_it_may_be_drawing(
    gemini_within: GeminiWithin, google: GeminiStandIn, silent: Reply
) -> None:
    gemini = gemini_within(first_byte_seconds=0.05)
    google.faults.append(silent)
    with pytest.raises(ProviderTimeout):
        await gemini.draw(banana(), deadline=soon())
    assert len(google.seen) == 1


async def test_calls_beyond_calls_max_wait_for_a_slot_and_more_of_them_than_that_are_refused_at_once(
    gemini_within: GeminiWithin, google: GeminiStandIn
) -> None:
    gemini, gate = gemini_within(calls_max=2), asyncio.Event()
    google.faults.extend([Reply(gate=gate, content=drawn(RED_PNG).content)] * 4)
    running = [asyncio.create_task(gemini.draw(banana(), deadline=soon())) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as raised:
        await gemini.draw(banana(), deadline=soon())
    assert raised.value.code == "unavailable"
    gate.set()
    assert [(await each).content for each in running] == [RED_PNG] * 4
    assert (await gemini.draw(banana(), deadline=soon())).media_type == "image/png"


async def test_a_slot_is_released_by_a_call_that_failed_timed_out_or_was_cancelled(
    gemini_within: GeminiWithin, google: GeminiStandIn
) -> None:
    gemini, stuck = gemini_within(calls_max=1, held_bytes_max=1), Reply(b" ", is_stuck=True)
    google.faults.extend([blocked_prompt("SAFETY"), html(), stuck, stuck])
    for error in (ContentRefused, ProviderFailed):
        with pytest.raises(error):
            await gemini.draw(banana(), deadline=soon())
    with pytest.raises(ProviderTimeout):
        await gemini.draw(banana(), deadline=asyncio.get_running_loop().time() + 0.05)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gemini.draw(banana(), deadline=soon()), 0.05)
    assert (await gemini.draw(banana(), deadline=soon())).media_type == "image/png"


@pytest.mark.parametrize(("remote", "failure"), ANSWERED, indirect=["remote"])
async def test_neither_the_key_nor_the_providers_words_are_in_an_error_or_a_log(
    remote: RemoteSetup, google_url: str, endpoint_url: str, lines: list[str], failure: Failure
) -> None:
    remote.fail(*[failure.name] * 2)
    with pytest.raises(ApiError) as raised:
        await remote.open(first_byte_seconds=0.05, attempts_max=2).draw(banana(), deadline=soon())
    said = "".join([*everything_in(raised.value), *lines])
    for secret in (KEY, "canary", "Words of the provider", "words", google_url, endpoint_url):
        assert secret not in said


def everything_in(error: BaseException | None) -> Iterator[str]:
    """Everything that a handler could print of an error, its causes and their requests."""
    while error is not None:
        yield repr(error)
        yield repr({name: getattr(value, "__dict__", value) for name, value in vars(error).items()})
        error = error.__cause__ or error.__context__


class Written(logging.Handler):
    """Keeps every log line with all fields of its record."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{record.getMessage()} {vars(record)}")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines logged during the test, at DEBUG."""
    written: list[str] = []
    handler, logger = Written(written), logging.getLogger("nanobanana")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(before)


async def test_the_error_has_the_status_and_a_reason_for_the_operator(
    gemini: GeminiProvider, google: GeminiStandIn
) -> None:
    google.faults.append(failed(403, "PERMISSION_DENIED"))
    with pytest.raises(ProviderUnusable) as raised:
        await gemini.draw(banana(), deadline=soon())
    assert (raised.value.provider_status, raised.value.reason) == (403, "credentials, permission or model")
