"""The official OpenAI SDK, unmodified but for its address and key, gets its pictures and its errors."""

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import asyncpg
import httpx2
import openai
import pytest
from app.core.images import ImageFormat
from openai import AsyncOpenAI
from PIL import Image
from tests.conftest import Start
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import Account, Key, looks, sign_up
from tests.standins import gemini
from tests.standins.wire import Reply


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


def sdk_of(client: httpx2.AsyncClient, key: Key, *, max_retries: int = 0, told: list[int] | None = None) -> AsyncOpenAI:
    """The SDK with nothing but an address and a key; the statuses that it is told are written down."""

    async def note(response: httpx2.Response) -> None:
        if told is not None:
            told.append(response.status_code)

    watched = openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]})
    return AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key=key.raw, max_retries=max_retries, http_client=watched)


@pytest.fixture
async def sdk(client: httpx2.AsyncClient, key: Key) -> AsyncIterator[AsyncOpenAI]:
    async with sdk_of(client, key) as sdk:
        yield sdk


async def test_urls_lead_to_the_pictures(
    sdk: AsyncOpenAI, client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    answer = await sdk.images.generate(prompt="A cute banana", n=3, size="1024x1024")
    request_id = getattr(answer, "_request_id", None)
    assert request_id is not None
    assert request_id.startswith("req_")
    assert (answer.size, answer.output_format) == ("1024x1024", "png")
    urls = [each.url for each in answer.data or []]
    assert len(set(urls)) == 3
    for url in urls:
        shown = await client.get(httpx2.URL(url or "").path)
        with Image.open(BytesIO(shown.content)) as picture:
            assert picture.size == (1024, 1024)
    assert await total(database, key) == 3


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
async def test_bytes_are_a_picture_of_the_asked_format(sdk: AsyncOpenAI, picture_format: ImageFormat) -> None:
    answer = await sdk.images.generate(
        prompt="A cute banana", size="512x512", response_format="b64_json", output_format=picture_format
    )
    [each] = answer.data or []
    with Image.open(BytesIO(base64.b64decode(each.b64_json or ""))) as picture:
        assert (picture.format, picture.size) == (picture_format.upper(), (512, 512))
    assert each.url is None


async def test_the_models_name_and_auto_are_taken(sdk: AsyncOpenAI) -> None:
    answer = await sdk.images.generate(
        prompt="A cute banana", model="nano-banana", size="auto", quality="auto", background="auto", user="ada"
    )
    assert answer.size == "1024x1024"


async def test_each_picture_takes_from_the_limit(start: Start, database: asyncpg.Connection) -> None:
    client = await start(generate_limit_per_key="9/day")
    key = await (await sign_up(client)).create_key()
    async with sdk_of(client, key) as sdk:
        answers = [await sdk.images.with_raw_response.generate(prompt="A cute banana", n=n) for n in (1, 3)]
    assert [each.headers["x-ratelimit-remaining-requests"] for each in answers] == ["8", "5"]
    assert await total(database, key) == 4


@pytest.mark.parametrize(
    ("wrong", "error", "code", "param"),
    [
        ({"extra_body": {"seed": 1}}, openai.BadRequestError, "unsupported_parameter", "seed"),
        ({"extra_body": {"sed": 1}}, openai.BadRequestError, "unsupported_parameter", None),
        ({"extra_headers": {"Idempotency-Key": "a b"}}, openai.BadRequestError, "invalid_request", None),
        ({"extra_headers": {"Authorization": "Bearer x"}}, openai.AuthenticationError, "invalid_api_key", None),
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", "model"),
        ({"prompt": "a" * 270_000}, openai.APIStatusError, "body_too_large", None),
        ({"size": "1x1"}, openai.UnprocessableEntityError, "validation_error", "size"),
    ],
)
async def test_what_a_caller_does_wrong_is_the_error_that_the_sdk_has_for_it(
    sdk: AsyncOpenAI, *, wrong: dict[str, Any], error: type[openai.APIStatusError], code: str, param: str | None
) -> None:
    with pytest.raises(error) as raised:
        await sdk.images.generate(**{"prompt": "A cute banana", **wrong})
    assert (raised.value.code, raised.value.param) == (code, param)
    assert raised.value.request_id == raised.value.response.headers["x-request-id"]


async def test_what_became_of_a_first_request_is_the_error_that_the_sdk_has_for_it(start: Start) -> None:
    async with painted(start) as there, sdk_of(there.client, there.key) as sdk:

        async def generate(prompt: str = "A cute banana") -> openai.types.ImagesResponse:
            return await sdk.images.generate(prompt=prompt, extra_headers={"Idempotency-Key": "once"})

        gate = asyncio.Event()
        there.provider.faults.append(gemini.slow(gate))
        running = asyncio.create_task(generate())
        await there.asked()
        with pytest.raises(openai.ConflictError) as in_use:
            await generate()
        assert in_use.value.code == "idempotency_key_in_use"
        gate.set()
        [made] = (await running).data or []
        with pytest.raises(openai.UnprocessableEntityError) as reused:
            await generate("A rude banana")
        assert reused.value.code == "idempotency_key_reused"
        generation_id = (made.url or "").rpartition("/")[2].removesuffix(".png")
        await there.client.delete(f"/v1/generations/{generation_id}", headers=there.key.headers)
        with pytest.raises(openai.APIStatusError) as gone:
            await generate()
        assert (gone.value.status_code, gone.value.code) == (410, "image_deleted")


@pytest.mark.parametrize(
    ("faults", "status", "code"),
    [
        ([gemini.html()], 502, "provider_failed"),
        ([gemini.failed(403, "PERMISSION_DENIED")], 503, "provider_unavailable"),
        ([Reply(is_stuck=True)], 504, "provider_timeout"),
    ],
)
async def test_what_a_provider_fails_at_is_the_error_that_the_sdk_has_for_it(
    start: Start, faults: list[Reply], status: int, code: str
) -> None:
    async with painted(start, generation_deadline_seconds=2) as there, sdk_of(there.client, there.key) as sdk:
        there.provider.faults.extend(faults)
        with pytest.raises(openai.InternalServerError) as raised:
            await sdk.images.generate(prompt="A cute banana")
        assert (raised.value.status_code, raised.value.code) == (status, code)


async def test_a_limit_that_is_met_is_the_error_that_the_sdk_has_for_it(start: Start) -> None:
    client = await start(generate_limit_per_key="1/day")
    key = await (await sign_up(client)).create_key()
    async with sdk_of(client, key) as sdk:
        await sdk.images.generate(prompt="A cute banana")
        with pytest.raises(openai.RateLimitError) as raised:
            await sdk.images.generate(prompt="A cute banana")
    assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "rate_limit_error")


async def test_a_refusal_of_the_provider_is_a_bad_request_and_is_not_sent_again(start: Start) -> None:
    async with painted(start) as there:
        there.provider.faults.append(gemini.blocked_prompt("SAFETY"))
        async with sdk_of(there.client, there.key, max_retries=3) as sdk:
            with pytest.raises(openai.BadRequestError) as refused:
                await sdk.images.generate(prompt="A cute banana")
        assert refused.value.code == "content_policy_violation"
        assert len(there.provider.seen) == 1


async def test_of_several_pictures_the_sdk_gets_those_that_could_be_made_and_the_codes_of_the_others(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there, sdk_of(there.client, there.key) as sdk:
        there.provider.faults.append(Reply(b"", 502))
        answer = await sdk.images.generate(prompt="A cute banana", n=3)
        assert len({each.url for each in answer.data or []}) == 2
        [error] = (answer.model_extra or {})["errors"]
        assert (error["code"], error["index"] in range(3)) == ("provider_failed", True)
        assert await total(database, there.key) == 2
        there.provider.faults.extend([gemini.blocked_prompt("SAFETY")] * 3)
        with pytest.raises(openai.BadRequestError):
            await sdk.images.generate(prompt="A cute banana", n=3)
        assert await total(database, there.key) == 2


async def test_a_rate_limit_is_waited_for_by_the_sdk(start: Start, database: asyncpg.Connection) -> None:
    client = await start(generate_limit_per_key="1/second")
    key = await (await sign_up(client)).create_key()
    told: list[int] = []
    async with sdk_of(client, key, max_retries=5, told=told) as sdk:
        for _ in range(3):
            await sdk.images.generate(prompt="A cute banana")
    assert Counter(told)[200] == await total(database, key) == 3
    assert set(told) == {200, 429}


async def test_a_request_that_is_still_drawn_is_waited_for_by_the_sdk_and_counts_once(
    start: Start, database: asyncpg.Connection
) -> None:
    once, gate = {"Idempotency-Key": "once"}, asyncio.Event()
    told: list[int] = []
    async with painted(start) as there, sdk_of(there.client, there.key, max_retries=5, told=told) as sdk:
        there.provider.faults.append(gemini.slow(gate))
        calls = [asyncio.create_task(sdk.images.generate(prompt="A cute banana", extra_headers=once)) for _ in range(2)]
        for _ in looks():
            if told:
                break
            await asyncio.sleep(0.01)
        gate.set()
        first, second = [(await call).data for call in calls]
        assert first == second
        assert (told[0], told[-2:], set(told)) == (409, [200, 200], {409, 200})
        assert len(there.provider.seen) == 1
        assert await total(database, there.key) == 1
