"""The requests of programs that are too large to be run here, sent as they send them: Open WebUI, LibreChat, LobeHub,
Cherry Studio and n8n, as of November 2026.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import asyncpg
import httpx2
import pytest
from app.catalogue.configured import DEFAULT_MODEL as MODEL
from PIL import Image
from tests.conftest import Start
from tests.features.openai.forms import Part, data_url, file, picture, post_form
from tests.features.usage.recorded import total
from tests.harness import JSON, Account, Key

ROUTE = "/v1/images/generations"
PROMPT = {"prompt": "A cute banana"}


@dataclass(frozen=True)
class Sent:
    """A request of a program, and the member of the answer in which the program looks for the image."""

    program: str
    body: JSON
    member: str
    size: tuple[int, int] = (1024, 1024)
    path: str = ROUTE


@dataclass(frozen=True)
class Refused:
    """A request that is refused with this status and code, in the envelope whose sentence a program can show."""

    name: str
    method: str
    path: str
    status: int
    code: str
    has_file: bool = False
    has_key: bool = True


_BYTES = {"response_format": "b64_json"}
_AUTO = {"size": "auto", "quality": "auto", "background": "auto"}
_LIBRECHAT = {"model": "gpt-image-1", "n": 1, **_AUTO, "output_format": "webp", "output_compression": 100}

SENT = [
    Sent("Open WebUI, untouched", {"model": "dall-e-2", "n": 1, "size": "512x512", **_BYTES}, "b64_json", (512, 512)),
    Sent("Open WebUI", {"model": "nano-banana", "n": 1, "size": "1024x1024", **_BYTES}, "b64_json"),
    Sent("Open WebUI, double slash", {"n": 1, **_BYTES}, "b64_json", path="/v1//images/generations"),
    Sent("Open WebUI, gpt-image-1", {"model": "gpt-image-1", "n": 1, "size": "1024x1024"}, "b64_json"),
    Sent("LibreChat", _LIBRECHAT, "b64_json"),
    Sent("LobeHub", {"model": "nano-banana", "n": 1}, "url"),
    Sent("LobeHub, gpt-image-1", {"model": "gpt-image-1", "n": 1, "size": "1536x1024"}, "b64_json", (1536, 1024)),
    Sent("LobeHub, dall-e-3", {"model": "dall-e-3", "n": 1, "size": "1024x1024", **_BYTES}, "b64_json"),
    Sent("Cherry Studio", {"model": "nano-banana", "n": 1, "size": "1024x1024"}, "url"),
    Sent("Cherry Studio, gpt-image-1", {"model": "gpt-image-1", "n": 1, "moderation": "low"}, "b64_json"),
    Sent(
        "n8n, version 1",
        {"model": "dall-e-3", "n": 1, "size": "1024x1024", "quality": "standard", "style": "vivid", **_BYTES},
        "b64_json",
    ),
    Sent("n8n, version 2.2", {"model": "gpt-image-1-mini", "n": 1, "quality": "medium"}, "b64_json"),
    Sent("n8n, nano-banana", {"model": "nano-banana", "n": 1, **_BYTES}, "b64_json"),
    Sent("Azure's way to name a version", {"n": 1}, "url", path=f"{ROUTE}?api-version=2026-05-01"),
]
REFUSED = [
    Refused("wrong key", "POST", ROUTE, 401, "invalid_api_key", has_key=False),
    Refused("list of models with a wrong key", "GET", "/v1/models", 401, "invalid_api_key", has_key=False),
    Refused("variation", "POST", "/v1/images/variations", 404, "not_found", has_file=True),
    Refused("unknown path", "POST", "/v1/audio/speech", 404, "not_found"),
]


@dataclass(frozen=True)
class SentForm:
    """A form of a program's, to the route of edits. All read `b64_json` alone."""

    program: str
    parts: Sequence[Part]
    size: tuple[int, int] = (1024, 1024)


_LIKE_THE_IMAGE = (1256, 840)
_IMAGE, _SECOND = picture(), picture(1)
_SQUARE = Part("size", "1024x1024")
FORMS = [
    SentForm(
        "Open WebUI",
        [
            *(Part("model", "gpt-image-2"), Part("prompt", "a"), Part("n", "1"), _SQUARE),
            file("image[]", _IMAGE, "image_0.png"),
            file("image[]", picture(1, "WEBP"), "image_1.png"),
        ],
    ),
    SentForm(
        "Open WebUI, untouched",
        [Part("model", "dall-e-2"), Part("prompt", "a"), file("image", _IMAGE, "blob")],
        _LIKE_THE_IMAGE,
    ),
    SentForm(
        "LibreChat",
        [
            *(Part("model", "gpt-image-1"), Part("prompt", "a"), Part("n", "1"), Part("quality", "auto")),
            *(Part("size", "auto"), file("image[]", _IMAGE, "a1b2.png"), file("image[]", _SECOND, "c3d4.webp")),
        ],
        _LIKE_THE_IMAGE,
    ),
    SentForm(
        "LobeHub",
        [
            *(Part("model", "nano-banana"), Part("prompt", "a"), Part("n", "1"), Part("input_fidelity", "high")),
            *(_SQUARE, file("image", _IMAGE, "image.png", "application/octet-stream")),
        ],
    ),
    SentForm("Cherry Studio", [file("image", _IMAGE), file("image", _SECOND), Part("prompt", "a"), _SQUARE]),
    SentForm("n8n", [file("image[]", _IMAGE, "data"), Part("model", "gpt-image-1-mini"), Part("prompt", "a"), _SQUARE]),
]
OPENROUTER_TOOL: JSON = {
    "model": "google/gemini-2.5-flash-image",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Make it yellow"},
                {"type": "image_url", "image_url": {"url": data_url(_IMAGE)}},
            ],
        }
    ],
    "modalities": ["image", "text"],
    "image_config": {"aspect_ratio": "16:9"},
}
"""What LibreChat's tool for OpenRouter, LobeHub for models that end with `:image`, and litellm's edits send."""


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


@pytest.mark.parametrize("sent", [pytest.param(each, id=each.program) for each in SENT])
async def test_the_program_finds_its_image_where_it_looks_for_it(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key, sent: Sent
) -> None:
    answer = await client.post(sent.path, json={**PROMPT, **sent.body}, headers=key.headers)
    assert answer.status_code == 200, answer.text
    [image] = answer.json()["data"]
    assert {*image} == {sent.member}
    content = base64.b64decode(image.get("b64_json", ""))
    if "url" in image:
        content = (await client.get(httpx2.URL(image["url"]).path)).content
    with Image.open(BytesIO(content)) as opened:
        assert opened.size == sent.size
    assert await total(database, key) == 1


async def test_a_programs_edit_is_in_the_answer_as_bytes(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key
) -> None:
    for sent in FORMS:
        answer = await post_form(client, key, sent.parts)
        assert answer.status_code == 200, (sent.program, answer.text)
        [image] = answer.json()["data"]
        with Image.open(BytesIO(base64.b64decode(image["b64_json"]))) as opened:
            assert opened.size == sent.size
    answer = await client.post("/v1/chat/completions", json=OPENROUTER_TOOL, headers={**key.headers, "X-Title": "a"})
    [shown] = answer.json()["choices"][0]["message"]["images"]
    assert shown["image_url"]["url"].startswith("data:image/png;base64,")
    assert await total(database, key) == len(FORMS) + 1


@pytest.mark.parametrize("refused", [pytest.param(each, id=each.name) for each in REFUSED])
async def test_what_is_not_there_is_refused_in_the_envelope(
    client: httpx2.AsyncClient, key: Key, refused: Refused
) -> None:
    files = {"image": ("in.png", bytes(100_000))} if refused.has_file else None
    headers = key.headers if refused.has_key else {"Authorization": "Bearer nb_live_wrong"}
    answer = await client.request(refused.method, refused.path, headers=headers, files=files)
    assert answer.status_code == refused.status
    error = answer.json()["error"]
    assert (error["code"], {*error}) == (refused.code, {"message", "type", "param", "code"})
    assert error["message"]


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}"])
async def test_a_picker_of_models_finds_ours(client: httpx2.AsyncClient, key: Key, path: str) -> None:
    answer = await client.get(path, headers=key.headers)
    assert answer.status_code == 200
    [model] = [each for each in answer.json().get("data", [answer.json()]) if each["id"] == MODEL]
    assert (model["object"], type(model["created"]), type(model["owned_by"])) == ("model", int, str)


@pytest.mark.parametrize("origin", ["https://chat.example.com"])
async def test_a_page_may_call_where_the_operator_allows_its_origin(start: Start, origin: str) -> None:
    client = await start(cors_origins=origin)
    headers = "authorization,content-type,x-stainless-retry-count"
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    answer = await client.options(ROUTE, headers=asked)
    assert answer.is_success
    assert answer.headers["access-control-allow-origin"] == origin
    assert {*headers.split(",")} <= {
        *answer.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    }
