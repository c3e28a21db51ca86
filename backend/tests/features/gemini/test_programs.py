"""The requests of programs that are too large to be run here, as their source sends them: Open WebUI's engine `gemini`
and n8n's node for Google Gemini.
"""

from dataclasses import dataclass

import asyncpg
import httpx2
import pytest
from tests.features.gemini.asked import google_key, image_in, inline, opened, png
from tests.features.usage.recorded import total
from tests.harness import JSON, Account, Key

PROMPT = {"text": "A cute banana"}
TWO = {"instances": [{"prompt": "A cute banana"}], "parameters": {"sampleCount": 2}}
ONE_OBJECT = {
    "instances": {"prompt": "A cute banana"},
    "parameters": {"sampleCount": 1, "outputOptions": {"mimeType": "image/png"}},
}
OF_N8N = {
    "contents": [{"role": "user", "parts": [PROMPT]}],
    "generationConfig": {"responseModalities": ["IMAGE", "TEXT"]},
}
EDITED = {
    "contents": [{"parts": [PROMPT, {"inline_data": {"mime_type": "image/png", "data": inline(png("red", 64, 64))}}]}]
}


@dataclass(frozen=True)
class Sent:
    """A request of a program, and how many images it gets."""

    program: str
    path: str
    body: JSON
    images: int = 1


SENT = [
    Sent("Open WebUI, predict", "imagen-3.0-generate-002:predict", ONE_OBJECT),
    Sent("Open WebUI, generateContent", "gemini-2.5-flash-image:generateContent", {"contents": [{"parts": [PROMPT]}]}),
    Sent("Open WebUI, an edit", "gemini-2.5-flash-image:generateContent", EDITED),
    Sent("n8n, Gemini", "gemini-2.5-flash-image:generateContent", OF_N8N),
    Sent("n8n, Imagen", "imagen-4.0-generate-001:predict", TWO, 2),
]


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key(environment="test")


async def test_the_program_finds_its_images_where_it_looks_for_them(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key
) -> None:
    for sent in SENT:
        answer = await client.post(f"/v1beta/models/{sent.path}", json=sent.body, headers=google_key(key))
        assert answer.status_code == 200, (sent.program, answer.text)
        predictions = answer.json().get("predictions")
        found = [each["bytesBase64Encoded"] for each in predictions] if predictions else [image_in(answer.json())]
        assert [opened(each) for each in found] == [("PNG", (1024, 1024))] * sent.images
    assert await total(database, key) == sum(sent.images for sent in SENT)


async def test_the_pickers_of_models_find_one_that_they_take_for_an_image_model(
    client: httpx2.AsyncClient, key: Key
) -> None:
    answer = await client.get("/v1beta/models?pageSize=1000", headers=google_key(key))
    names = [each["name"] for each in answer.json()["models"]]
    assert [each for each in names if "image" in each or "nano-banana" in each], "n8n, to make an image"
    assert "models/gemini-2.5-flash-image" in names, "n8n, to edit one; and it calls Gemini only by that name"
    assert all(each.startswith("models/") for each in names)
    assert (await client.get("/v1/models?pageSize=1", headers=google_key(key))).json() == answer.json()
    for name in names:
        model = (await client.get(f"/v1beta/{name}", headers=google_key(key))).json()
        assert model["name"] == "models/nano-banana"
        assert {"displayName", "version", "inputTokenLimit", "supportedGenerationMethods"} <= set(model)
    openais = await client.get("/v1/models", headers=key.headers)
    assert openais.json()["object"] == "list"
