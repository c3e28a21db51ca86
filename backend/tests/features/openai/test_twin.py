"""The twin of OpenAI's route, as a caller of any language meets it: its checks in order, its errors, its retries."""

import asyncio
import base64
import json
import threading
from collections import Counter

import asyncpg
import httpx2
import pytest
from app.providers.stub.art import draw_png
from tests.conftest import Start
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import JSON, Account, Key, generate, sign_up
from tests.problems import check_problem
from tests.raw_http import JSON_TYPE, head, send_raw
from tests.standins import gemini

ROUTE = "/v1/images/generations"
ONCE = {"Idempotency-Key": "once"}
BANANA = {"prompt": "A cute banana", "size": "64x64"}
MADE_UP = "canary_parameter"
STATUSES = {"unsupported_parameter": 400, "model_not_found": 404, "validation_error": 422}


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


async def ask(client: httpx2.AsyncClient, key: Key, body: JSON | None = None, **headers: str) -> httpx2.Response:
    return await client.post(ROUTE, json=BANANA | (body or {}), headers={**key.headers, **headers})


def param(answer: httpx2.Response) -> str | None:
    told: str | None = answer.json()["error"]["param"]
    return told


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        ({"style": "blurred"}, "validation_error", "style"),
        ({"quality": "ultra"}, "validation_error", "quality"),
        ({"background": "transparent"}, "unsupported_parameter", "background"),
        ({"moderation": "none"}, "validation_error", "moderation"),
        ({"output_compression": 101}, "validation_error", "output_compression"),
        ({"partial_images": 4}, "validation_error", "partial_images"),
        ({"stream": "true"}, "validation_error", "stream"),
        ({"seed": 1}, "unsupported_parameter", "seed"),
        ({"negative_prompt": MADE_UP}, "unsupported_parameter", "negative_prompt"),
        ({"complexity": "low"}, "unsupported_parameter", "complexity"),
        ({"frame_count": 2}, "unsupported_parameter", "frame_count"),
        ({"frame_duration_ms": 9}, "unsupported_parameter", "frame_duration_ms"),
        ({"svg": {"model": "a"}}, "unsupported_parameter", "svg"),
        ({MADE_UP: MADE_UP}, "unsupported_parameter", None),
        ({"model": MADE_UP}, "model_not_found", "model"),
        ({"prompt": "a" * 32_001}, "validation_error", "prompt"),
        ({"size": "1x1"}, "validation_error", "size"),
        ({"size": "1024X1024"}, "validation_error", "size"),
        ({"n": 0}, "validation_error", "n"),
        ({"n": 11}, "validation_error", "n"),
        ({"n": "2"}, "validation_error", "n"),
        ({"prompt": " "}, "validation_error", "prompt"),
        ({"prompt": None}, "validation_error", "prompt"),
        ({"response_format": "b64"}, "validation_error", "response_format"),
        ({"output_format": "gif"}, "validation_error", "output_format"),
        ({"user": "\0"}, "validation_error", "user"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name_and_not_ignored(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key, *, body: JSON, code: str, named: str | None
) -> None:
    answer = await ask(client, key, body)
    check_problem(answer, STATUSES[code], code)
    assert param(answer) == named
    assert MADE_UP not in answer.text
    assert await total(database, key) == 0


@pytest.mark.parametrize(
    "body",
    [
        {"model": None, "n": None, "size": None, "response_format": None, "output_format": None, "user": None},
        {"model": "nano-banana", "size": "auto", "quality": "auto", "background": "auto", "moderation": "auto"},
        {"model": "stub", "n": 1, "stream": False, "style": None, "svg": None, "safety_identifier": "ada"},
        {"model": "dall-e-3", "style": "vivid", "quality": "standard", "partial_images": 0, "input_fidelity": "low"},
        {"quality": "high", "background": "opaque", "moderation": "low", "output_compression": 100},
        {"prompt": "a" * 32_000},
    ],
)
async def test_what_asks_for_nothing_is_taken(client: httpx2.AsyncClient, key: Key, body: JSON) -> None:
    answer = await ask(client, key, body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert set(told) == {"created", "data", "size", "output_format"}
    assert [set(each) for each in told["data"]] == [{"url"}]


async def test_a_configured_model_is_known_by_its_name(start: Start) -> None:
    async with painted(start) as there:
        for model in (gemini.MODEL, "nano-banana"):
            answer = await ask(there.client, there.key, {"model": model, "size": "1024x1024"})
            assert answer.status_code == 200, answer.text
        check_problem(await ask(there.client, there.key, {"model": "stub"}), 404, "model_not_found")


async def test_checks_come_in_the_order_of_the_contract_each_in_openais_shape(start: Start) -> None:
    client = await start(generate_limit_per_key="2/day")
    key = await (await sign_up(client)).create_key()
    credential, once = ("Authorization", f"Bearer {key.raw}"), ("Idempotency-Key", "once")
    broken, large, fine = b"{", b" " * 270_000, json.dumps(BANANA).encode()
    calls: list[tuple[int, str, bytes, list[tuple[str, str]]]] = [
        (413, "body_too_large", large, [credential, credential]),
        (400, "invalid_request", broken, [credential, credential, once]),
        (400, "invalid_request", broken, [("Idempotency-Key", "a b")]),
        (401, "invalid_api_key", broken, [once]),
        (415, "unsupported_media_type", broken, [credential]),
        (400, "invalid_request", broken, [credential, JSON_TYPE]),
        (429, "rate_limit_exceeded", broken, [credential]),
        (429, "rate_limit_exceeded", fine, [credential, JSON_TYPE]),
    ]
    for status, code, body, headers in calls:
        request = head("POST", ROUTE, [*headers, ("Content-Length", str(len(body)))]) + body
        check_problem(await send_raw(client, request), status, code)
    for method in ("GET", "PUT", "DELETE"):
        answer = await client.request(method, ROUTE)
        check_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"


async def test_an_overloaded_server_says_so_in_openais_shape(start: Start) -> None:
    async with painted(start, requests_max=1) as there:
        gate = asyncio.Event()
        there.provider.faults.append(gemini.slow(gate))
        running = asyncio.create_task(generate(there.client, there.key))
        await there.asked()
        check_problem(await ask(there.client, there.key), 503, "overloaded")
        gate.set()
        await running


async def test_each_picture_takes_from_the_limit_and_more_than_it_ever_lets_through_is_told(
    start: Start, database: asyncpg.Connection
) -> None:
    client = await start(generate_limit_per_key="5/day", generate_limit_per_account="1000/day")
    key = await (await sign_up(client)).create_key()
    never = await ask(client, key, {"n": 6})
    check_problem(never, 422, "validation_error")
    assert param(never) == "n"
    first = await ask(client, key, {"n": 3})
    assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "1")
    refused = await ask(client, key, {"n": 2})
    check_problem(refused, 429, "rate_limit_exceeded")
    assert (await ask(client, key)).status_code == 200, "what was refused took nothing"
    check_problem(await ask(client, key), 429, "rate_limit_exceeded")
    assert await total(database, key) == 4


async def test_a_retry_is_a_replay_and_another_route_or_request_is_not(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key
) -> None:
    first = await ask(client, key, {"n": 2}, **ONCE)
    again = await ask(client, key, {"n": 2, "model": "nano-banana", "response_format": "url", "user": "ada"}, **ONCE)
    assert (first.status_code, "idempotent-replayed" in first.headers) == (200, False)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    for other in ({"n": 3}, {"n": 2, "output_format": "webp"}, {"n": 2, "response_format": "b64_json"}):
        reused = await ask(client, key, other, **ONCE)
        check_problem(reused, 422, "idempotency_key_reused")
        assert reused.headers["x-should-retry"] == "false"
    other_route = await client.post("/v1/generate", json=BANANA, headers={**key.headers, **ONCE})
    assert (other_route.status_code, "idempotent-replayed" in other_route.headers) == (200, False)
    assert await total(database, key) == 3


async def test_a_replay_whose_picture_was_deleted_is_gone(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key
) -> None:
    made = await ask(client, key, {"n": 2}, **ONCE)
    generation_id = made.json()["data"][1]["url"].rpartition("/")[2].removesuffix(".png")
    assert (await client.delete(f"/v1/generations/{generation_id}", headers=key.headers)).status_code == 204
    check_problem(await ask(client, key, {"n": 2}, **ONCE), 410, "image_deleted")
    assert await total(database, key) == 2


@pytest.mark.parametrize("environment", ["live", "test"])
async def test_bytes_are_those_behind_the_url_and_a_replay_has_them_too(start: Start, environment: str) -> None:
    async with painted(start) as there:
        key = await there.account.create_key(environment=environment)
        wanted = {"size": "256x256", "response_format": "b64_json", "output_format": "webp", "n": 2}
        first, again = [await ask(there.client, key, wanted, **ONCE) for _ in range(2)]
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
        listed = (await there.client.get("/v1/generations", headers=key.headers)).json()
        shown = {(await there.client.get(httpx2.URL(each["url"]).path)).content for each in listed}
        assert {base64.b64decode(each["b64_json"]) for each in first.json()["data"]} == shown


@pytest.mark.parametrize("body", [{"response_format": "b64_json"}, {"stream": True}], ids=str)
async def test_bytes_that_cannot_be_drawn_are_not_counted(
    start: Start, database: asyncpg.Connection, free: threading.Event, monkeypatch: pytest.MonkeyPatch, body: JSON
) -> None:
    def held(prompt: str, *, width: int, height: int, model: str = "") -> bytes:
        free.wait()
        return draw_png(prompt, width=width, height=height, model=model)

    monkeypatch.setattr("app.providers.stub.draw_png", held)
    client = await start(drawing_queue_max=1)
    key = await (await sign_up(client)).create_key()
    calls = [asyncio.create_task(ask(client, key, body)) for _ in range(20)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    free.set()
    told = Counter(answer.status_code for answer in await asyncio.gather(*calls))
    assert set(told) == {200, 503}
    assert await total(database, key) == told[200]
