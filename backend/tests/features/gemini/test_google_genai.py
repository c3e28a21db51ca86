"""Google's SDK for Python, unmodified but for its address and key, gets its images and its errors."""

from io import BytesIO
from typing import Any

import asyncpg
import httpx2
import pytest
from google import genai
from google.genai import errors, types
from PIL import Image
from tests.features.usage.recorded import total
from tests.harness import Account

MODEL = "gemini-2.5-flash-image"
RATIO = types.GenerateContentConfig(
    response_modalities=["TEXT", "IMAGE"],
    image_config=types.ImageConfig(aspect_ratio="16:9", image_size="1K"),
    system_instruction="Paint",
)
EDIT: Any = [Image.new("RGB", (96, 64), "red"), "Make it blue"]


def size_of(answer: types.GenerateContentResponse) -> tuple[int, int]:
    """The size of the one image of an answer."""
    [candidate] = answer.candidates or []
    [part] = (candidate.content or types.Content()).parts or []
    data = part.inline_data and part.inline_data.data
    with Image.open(BytesIO(data or b"")) as image:
        image.load()
        return image.size


async def test_googles_sdk_draws_edits_talks_and_lists(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key(environment="test")
    options = types.HttpOptions(base_url=str(client.base_url))
    async with genai.Client(api_key=key.raw, http_options=options).aio as sdk:
        drawn = await sdk.models.generate_content(model=MODEL, contents="A cute banana", config=RATIO)
        assert size_of(drawn) == (1344, 768)
        assert (drawn.model_version, str(drawn.response_id)[:4]) == ("nano-banana", "gen_")
        edited = await sdk.models.generate_content(model=MODEL, contents=EDIT)
        assert size_of(edited) == (1256, 840)
        chunks = [each async for each in await sdk.models.generate_content_stream(model=MODEL, contents="A banana")]
        assert [size_of(each) for each in chunks] == [(1024, 1024)]
        chat = sdk.chats.create(model=MODEL)
        talked = [await chat.send_message(text) for text in ("A cute banana", "Make it blue")]
        assert [size_of(each) for each in talked] == [(1024, 1024)] * 2
        [row] = await database.fetch("select kind, inputs from generations where id = $1", talked[1].response_id)
        assert (row["kind"], row["inputs"].count("sha256")) == ("edit", 1), "its first image goes into the second"
        assert "models/nano-banana" in [each.name async for each in await sdk.models.list()]
        assert (await sdk.models.get(model=MODEL)).name == "models/nano-banana"
        for call in (
            sdk.models.generate_content(model="gemini-x", contents="A"),
            sdk.models.count_tokens(model=MODEL, contents="A"),
            sdk.files.upload(file=BytesIO(b"x"), config={"mime_type": "image/png"}),
        ):
            with pytest.raises(errors.ClientError) as raised:
                await call
            assert (raised.value.code, raised.value.status) == (404, "NOT_FOUND")
            assert raised.value.message
    assert await total(database, key) == 5
