"""The guarantees of the S3 store: signed requests, bounded waits, and no keys or URLs in errors and logs."""

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from io import StringIO
from typing import Any

import httpx2
import pytest
from app.core.images import CACHE_CONTROL
from app.core.settings import ConfigurationError
from app.storage import StoreUnavailable
from app.storage.s3 import S3Store
from app.storage.s3_settings import S3Settings
from tests.harness import BEYOND_PATIENCE_SECONDS, PATIENCE_SECONDS, looks
from tests.standins.s3 import Fault, S3Server, s3_server

NAME = "gen_01kapn5vfe28fm63cjp43w44255s68.png"
CONTENT = bytes(range(256)) * 4000
Call = Callable[[S3Store], Awaitable[object]]
CALLS: list[Call] = [
    lambda store: store.put(NAME, CONTENT),
    lambda store: store.get(NAME),
    lambda store: store.get(NAME, start=1, end=1),
    lambda store: store.delete(NAME),
]


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server("pictures") as server:
        yield server


@pytest.fixture
def settings(server: S3Server) -> S3Settings:
    return S3Settings("pictures", server.key_id, server.secret, server.url, prefix="test/live")


@pytest.fixture
def store(settings: S3Settings) -> S3Store:
    return S3Store(settings)


OPERATIONS = ("put", "get", "delete")
"""What CALLS ask for: the second `get` is counted, and not a line."""


def lines(log: StringIO) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [(line["operation"], line["reason"]) for line in found if line["event"] == "store_unavailable"]


async def test_an_object_has_media_type_and_cache_control_and_the_prefix_in_its_key(
    store: S3Store, server: S3Server
) -> None:
    await store.put(NAME, CONTENT)
    [(key, kept)] = server.buckets["pictures"].items()
    assert key == f"test/live/{NAME}"
    assert (kept.headers["content-type"], kept.headers["cache-control"]) == ("image/png", CACHE_CONTROL)
    assert [(seen.method, seen.path) for seen in server.seen] == [("PUT", f"/pictures/test/live/{NAME}")]


async def test_a_presigned_url_serves_the_image_until_it_expires_and_is_made_without_a_request(
    settings: S3Settings, server: S3Server
) -> None:
    store = S3Store(settings, redirect_seconds=60)
    await store.put(NAME, CONTENT)
    presigned = await store.presigned_url(NAME)
    assert presigned is not None
    assert (presigned.seconds, len(server.seen)) == (60, 1)
    async with httpx2.AsyncClient() as browser:
        shown = await browser.get(presigned.url)
        assert (shown.content, shown.headers["content-type"]) == (CONTENT, "image/png")
        server.clock_offset_seconds = 62
        assert (await browser.get(presigned.url)).status_code == 403
    with pytest.raises(ValueError, match="not the name of an image"):
        await store.presigned_url("../secret")


@pytest.mark.parametrize("fault", ["internal_error", "slow_down", "reset"])
async def test_a_passing_fault_is_retried_and_hidden(store: S3Store, server: S3Server, fault: Fault) -> None:
    await store.put(NAME, CONTENT)
    for method in ("PUT", "GET", "DELETE"):
        server.fail(fault, times=2, method=method)
    await asyncio.gather(*(call(store) for call in CALLS))
    assert len([seen for seen in server.seen if seen.status in {0, 500, 503}]) == 6


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("internal_error", "InternalError"), ("slow_down", "SlowDown"), ("reset", "no_answer"), ("hang", "timeout")],
)
async def test_a_lasting_fault_is_unavailable_within_the_deadline(
    settings: S3Settings, server: S3Server, log: StringIO, fault: Fault, reason: str
) -> None:
    store = S3Store(settings, deadline_seconds=0.4)
    server.fail(fault, times=100)
    began = time.monotonic()
    outcomes = await asyncio.gather(*(call(store) for call in CALLS), return_exceptions=True)
    assert time.monotonic() - began < 10  # without our bounds: three minutes
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 4
    logged = lines(log)
    assert {operation for operation, _ in logged} == set(OPERATIONS)
    assert {found for _, found in logged} <= {reason, "timeout"}
    assert len(server.seen) <= 16
    server.recover()
    await S3Store(settings).put(NAME, CONTENT)


async def test_calls_wait_for_a_busy_connection_no_longer_than_the_deadline(
    settings: S3Settings, server: S3Server
) -> None:
    store = S3Store(settings, deadline_seconds=0.4, connections_max=1)
    server.fail("hang", times=100)
    outcomes = await asyncio.gather(*(store.get(NAME) for _ in range(20)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
    assert len(server.seen) < 10


async def test_an_image_waits_for_a_busy_connection_beyond_the_deadline(settings: S3Settings, server: S3Server) -> None:
    store = S3Store(settings, deadline_seconds=0.4, connections_max=1)
    server.fail("hang", times=100)
    first, *_, last = [asyncio.create_task(store.put(NAME, CONTENT)) for _ in range(3)]
    with pytest.raises(StoreUnavailable):
        await first
    server.recover()
    await last


async def test_however_many_readers_wait_for_the_store_an_image_is_written(
    settings: S3Settings, server: S3Server
) -> None:
    store = S3Store(settings, deadline_seconds=BEYOND_PATIENCE_SECONDS, connections_max=1)
    server.fail("hang", times=1, method="GET")
    gets = [asyncio.create_task(store.get(NAME)) for _ in range(20)]
    for _ in looks():
        if server.seen:
            break
        await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await store.put(NAME, CONTENT)
    assert not any(get.done() for get in gets)
    for get in gets:
        get.cancel()
    assert {type(outcome) for outcome in await asyncio.gather(*gets, return_exceptions=True)} == {
        asyncio.CancelledError
    }


async def test_a_truncated_response_is_unavailable(settings: S3Settings, server: S3Server) -> None:
    store = S3Store(settings, deadline_seconds=1)
    await store.put(NAME, CONTENT)
    server.fail("cut", times=100, method="GET")
    stored = await store.get(NAME)
    assert stored is not None
    with pytest.raises(StoreUnavailable):
        _ = [chunk async for chunk in stored.chunks]


async def test_an_image_is_read_to_its_end_though_its_reader_pauses_beyond_the_deadline(settings: S3Settings) -> None:
    store = S3Store(settings, deadline_seconds=1)
    content = bytes(8_000_000)
    await S3Store(settings).put(NAME, content)
    stored = await store.get(NAME)
    assert stored is not None
    size = len(await anext(stored.chunks))
    await asyncio.sleep(1.2)
    assert size + sum([len(chunk) async for chunk in stored.chunks]) == len(content)


async def test_a_missing_bucket_is_unavailable_and_not_a_missing_image(settings: S3Settings) -> None:
    store = S3Store(replace(settings, bucket="another"))
    for call in CALLS:
        with pytest.raises(StoreUnavailable):
            await call(store)


async def test_another_servers_404_is_unavailable_and_not_a_missing_image(
    store: S3Store, server: S3Server, log: StringIO
) -> None:
    server.fail("not_s3", times=4)
    for call in CALLS:
        with pytest.raises(StoreUnavailable):
            await call(store)
    assert lines(log) == [(operation, "404") for operation in OPERATIONS]
    assert "WordsOfItsOwn" not in log.getvalue()


async def test_errors_and_logs_hold_no_keys_urls_or_words_of_the_store(settings: S3Settings, log: StringIO) -> None:
    wrong = replace(settings, secret_access_key="canary-secret")
    store, printed = S3Store(wrong), []
    for call in (*CALLS, S3Store.check):
        try:
            await call(store)
        except (StoreUnavailable, ConfigurationError) as error:
            printed += traceback.format_exception(error)
            chain: BaseException | None = error
            while chain is not None:
                printed += [repr(chain), repr(vars(chain))]
                chain = chain.__context__
    assert settings.endpoint is not None
    canaries = ["canary-secret", settings.access_key_id, settings.endpoint.partition("//")[2], NAME, "StringToSign"]
    everything = "".join(printed) + log.getvalue()
    assert [canary for canary in canaries if canary in everything] == []
    assert "canary-secret" not in repr(wrong)
    assert lines(log) == [(operation, "SignatureDoesNotMatch") for operation in OPERATIONS]


async def test_aws_environment_variables_change_nothing(
    settings: S3Settings, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "another",
        "AWS_SECRET_ACCESS_KEY": "another",
        "AWS_SESSION_TOKEN": "another",
        "AWS_REGION": "another",
        "AWS_BUCKET": "another",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_S3_EXPRESS": "true",
        "AWS_REQUEST_PAYER": "true",
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    store = S3Store(settings)
    await store.put(NAME, CONTENT)
    [seen] = server.seen
    assert {"x-amz-security-token", "x-amz-request-payer"}.isdisjoint(seen.headers)
    assert seen.headers["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD"


async def test_check_leaves_no_object(store: S3Store, server: S3Server) -> None:
    await store.check()
    assert [seen.method for seen in server.seen] == ["PUT", "GET", "DELETE", "GET"]
    assert server.buckets["pictures"] == {}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"secret_access_key": "0" * 64}, "S3_SECRET_ACCESS_KEY does not belong to S3_ACCESS_KEY_ID"),
        ({"access_key_id": "AKIAIOSFODNN7EXAMPLE"}, "S3_ACCESS_KEY_ID is not known"),
        ({"bucket": "another"}, "S3_BUCKET names no bucket"),
        ({"region": "eu-west-1"}, "S3_REGION is not"),
    ],
)
async def test_check_names_the_wrong_setting(settings: S3Settings, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        await S3Store(replace(settings, **wrong)).check()
    assert [value for value in wrong.values() if value in str(caught.value)] == []


async def test_check_names_a_wrong_clock(store: S3Store, server: S3Server) -> None:
    server.clock_offset_seconds = 1000
    with pytest.raises(ConfigurationError, match="The clock of this machine"):
        await store.check()


async def test_check_distinguishes_a_missing_a_silent_and_a_failing_endpoint(
    settings: S3Settings, server: S3Server
) -> None:
    nowhere = S3Store(replace(settings, endpoint="http://127.0.0.1:1"), deadline_seconds=5)
    with pytest.raises(StoreUnavailable, match="S3_ENDPOINT refuses the connection"):
        await nowhere.check()
    store = S3Store(settings, deadline_seconds=0.5)
    server.fail("hang", times=100)
    with pytest.raises(StoreUnavailable, match="does not answer in time"):
        await store.check()
    server.recover()
    server.fail("internal_error", times=100)
    with pytest.raises(StoreUnavailable, match="The S3 store fails: InternalError"):
        await S3Store(settings).check()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"endpoint": "http://s3.example.com"}, "S3_ENDPOINT must begin with https://"),
        ({"endpoint": "http://127.0.0.1.example.com"}, "S3_ENDPOINT must begin with https://"),
        ({"endpoint": "http://10.0.0.7:9000"}, "S3_ENDPOINT must begin with https://"),
        ({"endpoint": "https://account.r2.cloudflarestorage.com/pictures"}, "S3_ENDPOINT must end with the host"),
        ({"endpoint": "https://user:canary@s3.example.com"}, "S3_ENDPOINT must look like"),
        ({"endpoint": "s3.example.com"}, "S3_ENDPOINT must look like"),
        ({"endpoint": None}, "S3_REGION must be the one of the bucket"),
        ({"bucket": "pictures/../other"}, "S3_BUCKET must be"),
        ({"bucket": ""}, "S3_BUCKET must be"),
        ({"prefix": "../other"}, "S3_PREFIX must look like"),
        ({"prefix": "/live"}, "S3_PREFIX must look like"),
        ({"region": ""}, "S3_REGION must"),
        ({"region": "x@evil.example/", "endpoint": None}, "S3_REGION must"),
        ({"access_key_id": "canary\n"}, "S3_ACCESS_KEY_ID must"),
        ({"secret_access_key": ""}, "S3_SECRET_ACCESS_KEY must"),
    ],
)
def test_invalid_settings_are_refused(settings: S3Settings, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        S3Store(replace(settings, **wrong))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "allow_http"),
    [
        ("http://localhost:9000", False),
        ("http://[::1]:9000/", False),
        ("http://minio:9000", True),
        ("https://account.r2.cloudflarestorage.com", False),
        (None, False),
    ],
)
async def test_plain_http_is_for_this_machine_or_with_allow_http(
    settings: S3Settings, endpoint: str | None, *, allow_http: bool
) -> None:
    at = replace(settings, endpoint=endpoint, region="eu-west-1", allow_http=allow_http)
    presigned = await S3Store(at, redirect_seconds=60).presigned_url(NAME)
    assert presigned is not None
    begin = (endpoint or "https://s3.eu-west-1.amazonaws.com").rstrip("/")
    assert presigned.url.startswith(f"{begin}/pictures/test/live/{NAME}?")


async def test_checks_of_a_bucket_that_writes_too_slowly_leave_nothing_once_one_succeeds(
    settings: S3Settings, server: S3Server
) -> None:
    store = S3Store(settings, deadline_seconds=0.1)
    server.fail("slow", times=100, method="PUT")
    for _ in range(3):
        with pytest.raises((ConfigurationError, StoreUnavailable)):
            await store.check()
    server.recover()
    for _ in looks():
        if len([seen for seen in server.seen if seen.method == "PUT" and seen.status == 200]) >= 3:
            break
        await asyncio.sleep(0.01)
    await S3Store.check(store)
    assert server.buckets["pictures"] == {}
