"""Chat completions as clients of OpenRouter's way send them: what is drawn, from what, and what is only answered."""

import asyncio
import base64
import json
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from app.features.chat.schemas import SENTENCE, ChatCompletionCreate
from app.features.chat.service import drawing_of
from PIL import Image
from tests.conftest import Start
from tests.features.generate.painted import painted
from tests.features.openai.forms import data_url, picture, upload
from tests.features.usage.recorded import total
from tests.harness import JSON, Account, Clock, Key, sign_up
from tests.problems import check_problem
from tests.standins import gemini

ROUTE = "/v1/chat/completions"
ONCE = {"Idempotency-Key": "once"}
DRAWN = {"modalities": ["image", "text"]}
MEMBERS = {"id", "object", "created", "model", "usage"}
PREFIX = "data:image/png;base64,"
TEXT_1, IMAGE_1 = "messages[1].content[0].text", "messages[0].content[1].image_url.url"
CHAT = {"a": "chat = true", "b": ""}

INPUTS = "select inputs from generations where id = $1"

_MODEL = """
[models.{name}]
{chat}

[[models.{name}.routes]]
provider = "stub"
"""


def user(*content: str | JSON) -> JSON:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def text(content: str) -> JSON:
    return {"type": "text", "text": content}


def image(url: str) -> JSON:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def drawn(*urls: str) -> JSON:
    return {"role": "assistant", "content": "", "images": [{**image(url), "index": 0} for url in urls]}


def sent_back(url: str) -> JSON:
    """An answer as LangChain sends it in the next request."""
    return {"role": "assistant", "content": [{"type": "image", "url": url}]}


BANANA = {"messages": [user("A cute banana")]}


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


async def ask(client: httpx2.AsyncClient, key: Key, body: JSON, **headers: str) -> httpx2.Response:
    return await client.post(ROUTE, json={**BANANA, **body}, headers={**key.headers, **headers})


def image_in(message: JSON) -> tuple[str | None, tuple[int, int]]:
    """The format and the size of the one image of a message or of a delta."""
    [made] = message["images"]
    assert (made["type"], made["index"]) == ("image_url", 0)
    assert made["image_url"]["url"].startswith(PREFIX)
    content = base64.b64decode(made["image_url"]["url"].removeprefix(PREFIX), validate=True)
    with Image.open(BytesIO(content)) as opened:
        opened.load()
        return opened.format, opened.size


def chunks_in(answer: httpx2.Response) -> list[JSON]:
    """The chunks of a whole stream, without its comments and the mark of its end."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in events if not each.startswith(":")]


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"modalities": ["image", "text"], "model": "google/gemini-2.5-flash-image", "stream": False}, (1024, 1024)),
        ({"modalities": ["image"], "temperature": 0.5, "max_tokens": 9, "n": 1, "usage": {"a": 1}}, (1024, 1024)),
        ({**DRAWN, "image_config": {"aspect_ratio": "16:9"}}, (1344, 768)),
        ({**DRAWN, "image_config": {"aspect_ratio": "9:16", "image_size": "1K", "strength": 1}}, (768, 1344)),
    ],
)
async def test_an_image_is_in_the_message_as_a_data_url_and_counts_once(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key, body: JSON, size: tuple[int, int]
) -> None:
    first, again = [await ask(client, key, body, **ONCE) for _ in range(2)]
    assert (first.status_code, first.headers["x-model"]) == (200, "nano-banana")
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    made = first.json()
    [choice] = made.pop("choices")
    message = choice.pop("message")
    assert image_in(message) == ("PNG", size)
    assert ({*message}, message["role"], message["content"]) == ({"role", "content", "images"}, "assistant", "")
    assert choice == {"index": 0, "finish_reason": "stop"}
    [listed] = (await client.get("/v1/generations", headers=key.headers)).json()
    assert (listed["id"], listed["prompt"]) == (made["id"], "A cute banana")
    assert made["usage"] == dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
    assert ({*made}, made["object"], made["model"]) == (MEMBERS, "chat.completion", "nano-banana")
    assert await total(database, key) == 1


async def test_a_stream_has_the_message_then_its_end(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key
) -> None:
    message, end = chunks_in(await ask(client, key, {**DRAWN, "stream": True}))
    assert {message["object"], end["object"]} == {"chat.completion.chunk"}
    assert (message["id"], message["created"], message["model"]) == (end["id"], end["created"], end["model"])
    [first], [last] = message["choices"], end["choices"]
    assert image_in(first["delta"]) == ("PNG", (1024, 1024))
    assert (first["finish_reason"], last) == (None, {"index": 0, "delta": {}, "finish_reason": "stop"})
    assert end["usage"]["total_tokens"] == 0
    assert await total(database, key) == 1


async def test_a_silent_stream_has_comments_and_a_late_error_is_an_event(
    start: Start, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.features.watched.KEEP_ALIVE_SECONDS", 0.01)
    async with painted(start) as there:
        gate = asyncio.Event()
        there.provider.faults.append(replace(gemini.blocked_prompt("SAFETY"), gate=gate))
        body = {**BANANA, **DRAWN, "stream": True}
        async with there.client.stream("POST", ROUTE, json=body, headers=there.key.headers) as answer:
            chunks = answer.aiter_text()
            assert (await anext(chunks)).startswith(": keep-alive\n\n")
            gate.set()
            rest = "".join([chunk async for chunk in chunks])
        error = json.loads(rest.rpartition("data: ")[2])["error"]
        assert (error["code"], {*error}) == ("content_policy_violation", {"message", "type", "param", "code"})
        assert await total(database, there.key) == 0


async def test_a_request_for_text_is_refused_as_soon_as_its_key_is_revoked(
    start: Start, externals: dict[str, Any], account: Account
) -> None:
    externals["cache_clock"] = Clock(0)  # who called is remembered for the whole test
    client, key = await start(), await account.create_key()
    assert (await ask(client, key, {"modalities": ["text"]})).status_code == 200
    await account.revoke_key(key)
    check_problem(await ask(client, key, {"modalities": ["text"]}), 401, "invalid_api_key")


async def test_a_request_for_text_is_answered_with_a_sentence_and_takes_draws_and_counts_nothing(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, generate_limit_per_key="1/day", generate_concurrency_per_key=1) as there:
        for body in ({}, {"modalities": ["text"]}, {"modalities": [], "n": 3, "tools": []}):
            answer, stream = [await ask(there.client, there.key, {**body, "stream": each}) for each in (False, True)]
            [choice] = answer.json()["choices"]
            assert (choice["finish_reason"], choice["message"]) == ("stop", {"role": "assistant", "content": SENTENCE})
            [first], [last] = [each["choices"] for each in chunks_in(stream)]
            assert (first["delta"], last["finish_reason"]) == (choice["message"], "stop")
        assert there.provider.seen == []
        assert (await ask(there.client, there.key, DRAWN)).status_code == 200
        check_problem(await ask(there.client, there.key, {}), 429, "rate_limit_exceeded")
        assert await total(database, there.key) == 1


async def test_a_model_whose_file_has_chat_draws_unless_only_text_is_asked_for(
    start: Start, database: asyncpg.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "models.toml"
    file.write_text('default = "a"\n' + "".join(_MODEL.format(name=name, chat=chat) for name, chat in CHAT.items()))
    client = await start(models_file=file)
    key = await (await sign_up(client)).create_key()
    for model, is_drawn in (("a", True), ("b", False)):
        for body, draws in (({}, is_drawn), ({"modalities": ["text"]}, False), (DRAWN, True)):
            answer = await ask(client, key, {**body, "model": model})
            assert ("images" in answer.json()["choices"][0]["message"]) == draws
    assert await total(database, key) == 3


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"n": 2}, 400, "unsupported_parameter", "n"),
        ({"n": 0}, 422, "validation_error", "n"),
        ({"model": "gpt-4o"}, 404, "model_not_found", "model"),
        ({"model": "gpt-4o", "modalities": None}, 404, "model_not_found", "model"),
        ({"messages": []}, 422, "validation_error", "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, 422, "validation_error", "messages"),
        ({"messages": [user(text("a")), user({"type": "text", "text": 1})]}, 422, "validation_error", TEXT_1),
        ({"messages": [user(text(" "))]}, 422, "validation_error", "messages[0].content"),
        ({"messages": [user(text("a" * 32_001))]}, 422, "validation_error", "messages[0].content"),
        ({"messages": [user("a\0")]}, 422, "validation_error", "messages[0].content"),
        ({"messages": [user(text("a"), {"type": "input_audio"})]}, 422, "validation_error", "messages[0].content[1]"),
        ({"messages": [user(text("a"), {"type": "image"})]}, 422, "validation_error", "messages[0].content[1]"),
        ({"messages": [user(text("a"), image("file:///etc/passwd"))]}, 422, "validation_error", IMAGE_1),
        ({"image_config": {"aspect_ratio": "1:7"}}, 422, "validation_error", "image_config.aspect_ratio"),
        ({"image_config": {"image_size": "4K"}}, 422, "validation_error", "image_config"),
        ({"modalities": "image"}, 422, "validation_error", "modalities"),
    ],
    ids=str,
)
async def test_what_cannot_be_honoured_is_refused_in_openais_shape_and_not_quoted(
    client: httpx2.AsyncClient,
    database: asyncpg.Connection,
    key: Key,
    *,
    body: JSON,
    status: int,
    code: str,
    param: str,
) -> None:
    answer = await ask(client, key, {**DRAWN, **body})
    check_problem(answer, status, code)
    assert answer.json()["error"]["param"] == param
    assert "passwd" not in answer.text
    assert await total(database, key) == 0


OLD, NEW, OWN = (f"https://images.example.com/{each}.png" for each in ("old", "new", "own"))
CONVERSATIONS: list[tuple[list[JSON], str, list[str]]] = [
    ([user("a")], "a", []),
    ([{"role": "system", "content": "s"}, user("a"), {"role": "assistant", "content": None}, user("b")], "b", []),
    ([user(text("a"), image(OWN), text("b"), image(NEW))], "a\nb", [OWN, NEW]),
    ([user(image(OLD)), drawn(NEW), user("b")], "b", [NEW]),
    ([drawn(OLD), user(image(NEW)), user(text("b"), image(OWN))], "b", [NEW, OWN]),
    ([user(image(OLD)), drawn(OLD, NEW), user(text("b")), drawn(OWN)], "b", [NEW]),
    ([user(image(OLD)), sent_back(NEW), user("b")], "b", [NEW]),
    ([drawn(OLD), user({"type": "file", "url": NEW}), user("b")], "b", [OLD]),
    ([user(text("a"), {"type": "image", "url": OWN})], "a", [OWN]),
]


@pytest.mark.parametrize(("messages", "prompt", "images"), CONVERSATIONS)
def test_the_last_message_of_the_user_is_the_prompt_and_its_images_follow_the_last_one_before(
    messages: list[JSON], prompt: str, images: list[str]
) -> None:
    sent = ChatCompletionCreate.model_validate({"messages": messages})
    drawing = drawing_of(sent)
    assert (drawing.prompt, [each.sent for each in drawing.images]) == (prompt, images)
    for each in drawing.images:
        found: Any = {"messages": messages}
        for step in each.pointer.removeprefix("#/").split("/"):
            found = found[int(step) if isinstance(found, list) else step]
        assert found == each.sent


async def test_images_of_a_conversation_go_in_and_those_of_others_are_not_there(
    client: httpx2.AsyncClient, database: asyncpg.Connection, account: Account, other_account: Account, key: Key
) -> None:
    first = (await ask(client, key, DRAWN)).json()
    made = first["choices"][0]["message"]
    [listed] = (await client.get("/v1/generations", headers=key.headers)).json()
    for url, source in ((made["images"][0]["image_url"]["url"], None), (listed["url"], first["id"])):
        for answered in (drawn(url), sent_back(url)):
            messages = [user("A cute banana"), answered, user(text("Beside it"), image(data_url(picture())))]
            answer = await ask(client, key, {**DRAWN, "messages": messages})
            assert image_in(answer.json()["choices"][0]["message"]) == ("PNG", (1024, 1024))
            recorded = json.loads(await database.fetchval(INPUTS, answer.json()["id"]))
            assert [each.get("id") for each in recorded] == [source, None]
            assert recorded[1]["sha256"] == sha256(picture()).hexdigest()
    assert await total(database, key) == 5
    uploaded = await upload(client, key)
    for other in (await other_account.create_key(), await account.create_key(environment="test")):
        for url in (listed["url"], listed["id"], uploaded):
            answer = await ask(client, other, {**DRAWN, "messages": [user("a"), drawn(url), user("b")], "stream": True})
            check_problem(answer, 422, "validation_error")
            assert answer.json()["error"]["param"] == "messages[1].images[0].image_url.url"
        assert await total(database, other) == 0
