"""`nanobanana check` and the start of `serve`: every configured dependency is checked, and a fault is one sentence."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import gaierror

import httpx2
import pytest
from app.checks import unreachable_sentence
from app.core.unreachable import reason_unreachable
from tests.harness import sign_up
from tests.standins import gemini, openai
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import OpenAIStandIn
from tests.standins.s3 import S3Server, s3_server
from tests.standins.stripe import StripeStandIn, serving_stripe
from tests.standins.wire import Reply, serving
from tests.test_cli import nanobanana, nanobanana_in_here
from tests.test_cli import serving as serving_nanobanana

PROVIDER_KEY = "canary-key-of-the-provider-0123456789"
NOWHERE = "http://127.0.0.1:1"
UNREACHABLE = "postgresql+asyncpg://u:hunter2@127.0.0.1:1/n"


@pytest.fixture
def bucket() -> Iterator[S3Server]:
    with s3_server("pictures") as server:
        yield server


def in_bucket(bucket: S3Server, **changes: str) -> dict[str, str]:
    account = {"S3_ACCESS_KEY_ID": bucket.key_id, "S3_SECRET_ACCESS_KEY": bucket.secret}
    return {"IMAGE_STORE": "s3", "S3_BUCKET": "pictures", "S3_ENDPOINT": bucket.url, **account, **changes}


@dataclass(frozen=True)
class Vendors:
    """Stand-ins for Gemini, an OpenAI-compatible endpoint and Stripe, and the settings that name them."""

    google: GeminiStandIn
    endpoint: OpenAIStandIn
    stripe: StripeStandIn
    google_url: str
    endpoint_url: str

    def gemini(self, **changes: str) -> dict[str, str]:
        settings = {"GEMINI_API_KEY": PROVIDER_KEY, "GEMINI_BASE_URL": self.google_url}
        return {"IMAGE_PROVIDER": "gemini", **settings, **changes}

    def openai(self, **changes: str) -> dict[str, str]:
        settings = {"OPENAI_API_KEY": PROVIDER_KEY, "OPENAI_BASE_URL": f"{self.endpoint_url}/v1"}
        return {"IMAGE_PROVIDER": "openai", **settings, **changes}

    def paid(self, **changes: str) -> dict[str, str]:
        return {"STRIPE_SECRET_KEY": self.stripe.key, "STRIPE_API_URL": self.stripe.url, **changes}


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    google, endpoint = GeminiStandIn(api_key=PROVIDER_KEY), OpenAIStandIn(api_key=PROVIDER_KEY)
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(each.answer)) for each in (google, endpoint)]
        stripe = await stack.enter_async_context(serving_stripe())
        yield Vendors(google, endpoint, stripe, *urls)


async def check(folder: Path, **settings: str) -> tuple[int, dict[str, str]]:
    """The exit status, and the result of each component."""
    done = await asyncio.to_thread(nanobanana_in_here, folder, "check", **settings)
    assert done.stderr == ""
    assert "hunter2" not in done.stdout
    assert PROVIDER_KEY not in done.stdout
    lines = [line.partition(": ") for line in done.stdout.splitlines()]
    return done.returncode, {name: said for name, _, said in lines}


async def test_every_configured_dependency_is_checked_and_no_image_is_bought(
    tmp_path: Path, database_url: str, redis_url: str, bucket: S3Server, vendors: Vendors
) -> None:
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **in_bucket(bucket)}
    for provider, name in ((vendors.gemini(), "gemini"), (vendors.openai(), "openai")):
        status, said = await check(tmp_path, **settings, **provider, **vendors.paid())
        stripe = {"stripe": "ok (test key: no money moves)"}
        assert said == {"database": "ok", "redis": "ok", "store": "ok (s3)", "provider": f"ok ({name})"} | stripe
        assert status == 0
    assert {seen.method for seen in vendors.stripe.seen} == {"GET"}
    assert {seen.method for seen in (*vendors.google.seen, *vendors.endpoint.seen)} == {"GET"}
    assert bucket.buckets["pictures"] == {}


async def test_without_settings_every_check_passes_on_the_built_in_parts(tmp_path: Path) -> None:
    done = await asyncio.to_thread(nanobanana, tmp_path, "check")
    told = re.sub(r"\d+\.\d GB", "some GB", done.stdout).splitlines()
    database, store = "database: not running: `nanobanana serve` starts it", "store: ok (disk, some GB free)"
    assert told == [database, "redis: none", store, "provider: ok (stub)", "stripe: none"]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_check_makes_no_secret(tmp_path: Path) -> None:
    assert nanobanana_in_here(tmp_path, "check").returncode == 0
    assert not (tmp_path / "secret_key").exists()


async def test_both_stores_are_checked_and_a_disk_that_is_nearly_full_is_said_to_be(
    tmp_path: Path, bucket: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.checks.NEARLY_FULL_BYTES", 10**18)
    status, said = await check(tmp_path, **in_bucket(bucket, SECOND_IMAGE_STORE="DISK"))
    nearly_full = r"nearly full \(disk, \d+\.\d GB free\)"
    assert re.fullmatch(rf"ok \(s3\), and second: {nearly_full}", said["store"])
    assert status == 0
    refused = await asyncio.to_thread(nanobanana_in_here, tmp_path, "check", SECOND_IMAGE_STORE="disk")
    assert refused.stderr == "nanobanana: SECOND_IMAGE_STORE must be another store than IMAGE_STORE\n"


async def test_every_failed_check_is_reported_in_one_run(tmp_path: Path, bucket: S3Server, vendors: Vendors) -> None:
    wrong = {"DATABASE_URL": UNREACHABLE, "REDIS_URL": "redis://u:hunter2@127.0.0.1:1"}
    store = in_bucket(bucket, S3_SECRET_ACCESS_KEY="hunter2" * 9)
    paid = vendors.paid(STRIPE_SECRET_KEY="sk_test_hunter2")
    status, said = await check(tmp_path, **wrong, **store, **vendors.gemini(GEMINI_MODEL="gemini-0"), **paid)
    assert status == 1
    assert said["database"].startswith("The database of DATABASE_URL cannot be reached")
    assert said["redis"] == "The Redis of REDIS_URL cannot be used (nobody listens on its host and port)."
    assert said["store"].startswith("S3_SECRET_ACCESS_KEY does not belong to S3_ACCESS_KEY_ID")
    assert said["provider"] == "GEMINI_MODEL names no model that there is at GEMINI_BASE_URL."
    assert said["stripe"].startswith("STRIPE_SECRET_KEY cannot be used. Stripe refused a call with status 401")


def test_a_host_name_without_an_address_is_said_in_words_and_only_a_rare_error_by_its_name() -> None:
    for error, reason in ((gaierror(-2, ""), "its host name has no address"), (BlockingIOError(), "BlockingIOError")):
        assert unreachable_sentence(error) == f"The database of DATABASE_URL cannot be reached ({reason})."
    of_redis = ConnectionError("Error -2 connecting to nowhere:6379")
    of_redis.__context__ = gaierror(-2, "")
    assert reason_unreachable(of_redis) == "its host name has no address"


@pytest.mark.parametrize(
    ("changes", "faults", "sentence"),
    [
        ({"GEMINI_API_KEY": "another"}, [], "GEMINI_API_KEY is refused."),
        ({}, [gemini.failed(403, "PERMISSION_DENIED")], "GEMINI_API_KEY is refused."),
        ({"GEMINI_MODEL": "gemini-0"}, [], "GEMINI_MODEL names no model that there is at GEMINI_BASE_URL."),
        ({"GEMINI_BASE_URL": NOWHERE}, [], "GEMINI_BASE_URL refuses the connection."),
        ({"GEMINI_BASE_URL": "https://nobody.invalid"}, [], "GEMINI_BASE_URL names a host that has no address."),
        ({}, [Reply(is_reset=True)], "GEMINI_BASE_URL ends the connection without an answer."),
        ({}, [gemini.failed(503, "UNAVAILABLE")], "GEMINI_BASE_URL answers with 503."),
        ({}, [gemini.html()], "GEMINI_BASE_URL does not answer as Gemini does."),
        ({"GEMINI_API_KEY": ""}, [], "IMAGE_PROVIDER is gemini, but GEMINI_API_KEY is missing."),
        ({"GEMINI_SIZES": "9x9"}, [], "GEMINI_SIZES cannot be read: entry 1 must look like 1536x1024=3:2/1K."),
    ],
)
async def test_each_fault_of_gemini_has_its_own_sentence(
    tmp_path: Path, vendors: Vendors, *, changes: dict[str, str], faults: list[Reply], sentence: str
) -> None:
    vendors.google.faults.extend(faults)
    status, said = await check(tmp_path, **vendors.gemini(**changes))
    assert (status, said["provider"]) == (1, sentence)


@pytest.mark.parametrize(
    ("changes", "faults", "status", "sentence"),
    [
        ({"OPENAI_API_KEY": "another"}, [], 1, "OPENAI_API_KEY is missing or refused."),
        ({"OPENAI_API_KEY": ""}, [], 1, "OPENAI_API_KEY is missing or refused."),
        ({"OPENAI_MODEL": "dall-e-9"}, [], 1, "OPENAI_MODEL is none of the models that OPENAI_BASE_URL lists."),
        ({"OPENAI_BASE_URL": NOWHERE}, [], 1, "OPENAI_BASE_URL refuses the connection."),
        ({}, [openai.failed(500, "server_error")], 1, "OPENAI_BASE_URL answers with 500."),
        ({}, [openai.failed(404, "not_found")], 0, "ok (openai)"),
        (
            {},
            [openai.failed(404, "not_found"), openai.failed(501, "not_implemented")],
            *(0, "it answers, but lists no models: key and model were not tried (openai)"),
        ),
        ({}, [gemini.html()] * 2, 0, "it answers, but lists no models: key and model were not tried (openai)"),
    ],
)
async def test_each_fault_of_an_endpoint_has_its_own_sentence_and_a_missing_list_of_models_is_none(
    tmp_path: Path, vendors: Vendors, *, changes: dict[str, str], faults: list[Reply], status: int, sentence: str
) -> None:
    vendors.endpoint.faults.extend(faults)
    found, said = await check(tmp_path, **vendors.openai(**changes))
    assert (found, said["provider"]) == (status, sentence)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"S3_SECRET_ACCESS_KEY": "hunter2" * 9}, "S3_SECRET_ACCESS_KEY does not belong to S3_ACCESS_KEY_ID"),
        ({"S3_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}, "S3_ACCESS_KEY_ID is not known to the store"),
        ({"S3_BUCKET": "another"}, "S3_BUCKET names no bucket of this account"),
        ({"S3_BUCKET": ""}, "IMAGE_STORE is s3, but S3_BUCKET is missing."),
    ],
)
def test_wrong_settings_of_a_store_are_refused_before_anything_is_started(
    tmp_path: Path, bucket: S3Server, *, wrong: dict[str, str], sentence: str
) -> None:
    done = nanobanana_in_here(tmp_path / "data", "serve", **in_bucket(bucket, **wrong))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"nanobanana: {sentence}")
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr
    assert not (tmp_path / "data" / "postgres").exists()


async def test_a_store_or_a_provider_that_cannot_be_used_now_is_a_warning_and_the_server_starts(
    tmp_path: Path, database_url: str, bucket: S3Server, vendors: Vendors
) -> None:
    wrong = {**in_bucket(bucket, S3_ENDPOINT=NOWHERE), **vendors.gemini(GEMINI_API_KEY="another")}
    settings = {**wrong, "STRIPE_SECRET_KEY": "sk_test_hunter2"}
    server = serving_nanobanana(tmp_path, DATABASE_URL=database_url, **settings)
    _, said = await asyncio.to_thread(server.__enter__)
    try:
        url = said.partition("NanoBanana is at ")[2].split()[0]
        async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
            key = await (await sign_up(client)).create_key(environment="test")
            answer = await client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=key.headers)
            assert answer.status_code == 200
            assert (await client.get(httpx2.URL(answer.json()["url"]).path)).status_code == 200
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)
    lines = (tmp_path / "stderr").read_text().splitlines()
    until = "Until that is mended, live keys may get no images."
    told = [line for line in lines if not line.startswith("{")]
    assert told == [
        f"S3_ENDPOINT refuses the connection. {until}",
        f"GEMINI_API_KEY is refused. {until}",
        "STRIPE_SECRET_KEY is a test key: customers pay nothing for their credit and plans.",
        "STRIPE_WEBHOOK_SECRET is not set: payments are noticed minutes late. `nanobanana billing sync` prints one.",
    ]
