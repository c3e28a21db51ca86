"""The official OpenAI SDK, unmodified but for its address and key, gets its pictures and its errors."""

import base64
from collections.abc import AsyncIterator
from io import BytesIO

import asyncpg
import httpx2
import openai
import pytest
from app.models import PictureFormat
from openai import AsyncOpenAI
from PIL import Image
from tests.conftest import Start
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import Account, Key, sign_up
from tests.standins import gemini


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


@pytest.fixture
async def sdk(client: httpx2.AsyncClient, key: Key) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key=key.raw, max_retries=0) as sdk:
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
async def test_bytes_are_a_picture_of_the_asked_format(sdk: AsyncOpenAI, picture_format: PictureFormat) -> None:
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


async def test_errors_are_those_that_the_sdk_knows(client: httpx2.AsyncClient, sdk: AsyncOpenAI) -> None:
    stranger = AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="nb_live_" + "0" * 32, max_retries=0)
    with pytest.raises(openai.AuthenticationError) as unknown:
        await stranger.images.generate(prompt="A cute banana")
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as model:
        await sdk.images.generate(prompt="A cute banana", model="dall-e-3")
    assert (model.value.code, model.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as style:
        await sdk.images.generate(prompt="A cute banana", style="vivid")
    assert (style.value.code, style.value.param) == ("unsupported_parameter", "style")
    with pytest.raises(openai.UnprocessableEntityError) as size:
        await sdk.images.generate(prompt="A cute banana", size="1x1")
    assert size.value.param == "size"
    await stranger.close()


async def test_a_refusal_of_the_provider_is_a_bad_request_and_is_not_sent_again(start: Start) -> None:
    async with painted(start) as there:
        there.gemini.faults.append(gemini.blocked_prompt("SAFETY"))
        async with AsyncOpenAI(base_url=f"{there.client.base_url}/v1", api_key=there.key.raw, max_retries=3) as sdk:
            with pytest.raises(openai.BadRequestError) as refused:
                await sdk.images.generate(prompt="A cute banana")
        assert refused.value.code == "content_policy_violation"
        assert len(there.gemini.seen) == 1


async def test_pictures_of_one_request_are_all_delivered_or_none(start: Start, database: asyncpg.Connection) -> None:
    async with painted(start) as there:
        async with AsyncOpenAI(base_url=f"{there.client.base_url}/v1", api_key=there.key.raw, max_retries=0) as sdk:
            there.gemini.faults.append(gemini.blocked_prompt("SAFETY"))
            with pytest.raises(openai.BadRequestError):
                await sdk.images.generate(prompt="A cute banana", n=3)
            assert await total(database, there.key) == 0
            answer = await sdk.images.generate(prompt="A cute banana", n=3)
        assert len({each.url for each in answer.data or []}) == 3
        assert await total(database, there.key) == 3


async def test_a_rate_limit_is_waited_for_by_the_sdk(start: Start, database: asyncpg.Connection) -> None:
    client = await start(generate_limit_per_key="1/second")
    key = await (await sign_up(client)).create_key()
    async with AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key=key.raw, max_retries=5) as sdk:
        for _ in range(3):
            await sdk.images.generate(prompt="A cute banana")
    assert await total(database, key) == 3
