"""`POST /v1/images`, as OpenRouter's SDK asks for images."""

import base64
import json
from hashlib import sha256
from io import BytesIO

import asyncpg
import httpx2
from PIL import Image
from tests.features.openai.forms import data_url, picture
from tests.features.usage.recorded import total
from tests.harness import JSON, Account
from tests.problems import check_problem

ROUTE = "/v1/images"
BANANA = {"model": "google/gemini-2.5-flash-image", "prompt": "A cute banana", "n": 1}
REFERENCES = {"input_references": [{"type": "image_url", "image_url": {"url": data_url(picture())}}]}
INPUTS = "select inputs from generations where key_id = $1 order by id desc limit 1"
TAKEN: list[tuple[JSON, tuple[int, int]]] = [
    ({}, (1024, 1024)),
    ({"n": 2, "size": "64x64", "response_format": "url"}, (64, 64)),
    ({"aspect_ratio": "16:9", "seed": 3}, (1344, 768)),
    ({"aspect_ratio": "16:9", "size": "64x64"}, (64, 64)),
    ({"aspect_ratio": "9:16", "resolution": "1K", **REFERENCES}, (768, 1344)),
    (REFERENCES, (1256, 840)),
]
REFUSED: list[tuple[JSON, int, str, str]] = [
    ({"strength": 1}, 400, "unsupported_parameter", "strength"),
    ({"seed": "a"}, 422, "validation_error", "seed"),
    ({"aspect_ratio": "1:7"}, 422, "validation_error", "aspect_ratio"),
    ({"resolution": "4K"}, 422, "validation_error", "size"),
    ({"input_references": [{"type": "text"}]}, 422, "validation_error", "input_references[0].type"),
    (
        {"input_references": [{"type": "image_url", "image_url": {"url": data_url(b"no image")}}]},
        422,
        "validation_error",
        "input_references[0].image_url.url",
    ),
    ({"prompt": ""}, 422, "validation_error", "prompt"),
]


async def test_images_are_answered_as_bytes_in_the_shape_that_is_asked_for(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()
    for body, size in TAKEN:
        answer = await client.post(ROUTE, json={**BANANA, **body}, headers=key.headers)
        assert answer.status_code == 200, answer.text
        images = answer.json()["data"]
        assert len(images) == body.get("n", 1)
        for each in images:
            with Image.open(BytesIO(base64.b64decode(each["b64_json"], validate=True))) as opened:
                assert opened.size == size
        inputs = json.loads(await database.fetchval(INPUTS, key.id) or "[]")
        assert inputs == ([{"sha256": sha256(picture()).hexdigest()}] if "input_references" in body else [])
    assert await total(database, key) == len(TAKEN) + 1
    for body, status, code, param in REFUSED:
        answer = await client.post(ROUTE, json={**BANANA, **body}, headers=key.headers)
        check_problem(answer, status, code)
        assert answer.json()["error"]["param"] == param, answer.text
    assert await total(database, key) == len(TAKEN) + 1
