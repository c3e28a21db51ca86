"""Errors in Google's format: every one that the application has, those of requests, and on whose paths."""

from typing import Any

import asyncpg
import httpx2
import pytest
from app.core.errors import ApiError, Overloaded, RateLimited
from app.features.gemini.errors import STATUSES, error_body
from tests.conftest import Start
from tests.docs.test_docs import subclasses
from tests.features.gemini.asked import BANANA, MODEL, ask, google_key
from tests.features.generate.painted import painted
from tests.features.usage.recorded import assert_nothing_recorded
from tests.harness import JSON, Account, Key, sign_up
from tests.problems import check_problem
from tests.standins import gemini

DRAWING = f"/v1beta/models/{MODEL}:generateContent"
WORDS = {
    *("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"),
    *("ABORTED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
}


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


def test_every_error_of_the_application_has_a_status_of_googles() -> None:
    statuses = {each.status for each in subclasses(ApiError) - {ApiError}}
    assert statuses | {402} == set(STATUSES)
    assert {word for _, word in STATUSES.values()} <= WORDS
    assert {ours: theirs for ours, (theirs, _) in STATUSES.items() if ours != theirs} == {422: 400}


def test_an_error_that_ends_by_itself_says_when_in_googles_words() -> None:
    for error in (Overloaded(retry_after_seconds=7), RateLimited(retry_after_seconds=7)):
        [_, retry] = error_body(error)["error"]["details"]
        assert retry == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}


def contents(text: str) -> JSON:
    return {"contents": [{"parts": [{"text": text}]}]}


def with_image(data: object) -> JSON:
    return {"contents": [{"parts": [{"text": "A cute banana"}, {"inlineData": {"data": data}}]}]}


WRONG: dict[str, tuple[Any, str, str]] = {
    "no contents": ({}, "validation_error", "contents: Field required"),
    "empty contents": ({"contents": []}, "validation_error", "must have a text"),
    "nothing of the user's": ({"contents": [{"role": "model"}]}, "validation_error", "must have a text"),
    "a blank text": (contents(" \n"), "validation_error", "must have a text"),
    "a text that cannot be stored": (contents("\0"), "validation_error", "U+0000"),
    "a long text": (contents("a" * 32_001), "validation_error", "at most 32000 characters"),
    "a text that is none": ({"contents": {"parts": {"text": 1}}}, "validation_error", "contents/0/parts/0/text"),
    "parts that are none": ({"contents": {"parts": "a"}}, "validation_error", "contents/0/parts"),
    "an image that is none": (with_image(1), "validation_error", "inlineData/data"),
    "an image that is no base64": (with_image("***"), "validation_error", "contents/0/parts/1/inlineData/data"),
    "an image that cannot be read": (with_image("AAAA"), "validation_error", "contents/0/parts/1/inlineData"),
    "too many images": (
        {"contents": [{"parts": [{"text": "A"}, *[{"inlineData": {"data": "***"}}] * 17]}]},
        "validation_error",
        "at most 16 images",
    ),
    "several candidates": (
        {**BANANA, "generationConfig": {"candidateCount": 2}},
        "unsupported_parameter",
        "one candidate",
    ),
    "text alone": (
        {**BANANA, "generationConfig": {"responseModalities": ["TEXT"]}},
        "unsupported_parameter",
        "responseModalities must have IMAGE",
    ),
    "an unknown ratio": (
        {**BANANA, "generationConfig": {"imageConfig": {"aspectRatio": "7:4"}}},
        "validation_error",
        "generationConfig/imageConfig/aspectRatio",
    ),
    "a size that the stub does not draw": (
        {**BANANA, "generationConfig": {"imageConfig": {"imageSize": "4K"}}},
        "validation_error",
        "generationConfig/imageConfig: Must be",
    ),
}
WRONG_PREDICTIONS: dict[str, tuple[Any, str, str]] = {
    "no instances": ({}, "validation_error", "instances: Field required"),
    "two instances": ({"instances": [{"prompt": "A"}] * 2}, "validation_error", "at most 1 item"),
    "no prompt": ({"instances": {}}, "validation_error", "instances/0/prompt"),
    "too many": ({"instances": {"prompt": "A"}, "parameters": {"sampleCount": 11}}, "validation_error", "sampleCount"),
    "an unknown format": (
        {"instances": {"prompt": "A"}, "parameters": {"outputOptions": {"mimeType": "image/gif"}}},
        "validation_error",
        "mimeType",
    ),
}


async def test_what_a_caller_does_wrong_is_a_400_that_names_the_place_and_records_nothing(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection
) -> None:
    cases = [(method, *each) for method in ("generateContent", "streamGenerateContent") for each in WRONG.values()]
    cases += [("predict", *each) for each in WRONG_PREDICTIONS.values()]
    for method, body, code, says in cases:
        answer = await ask(client, key, body, method=method)
        check_problem(answer, 400 if code == "unsupported_parameter" else 422, code)
        assert says in answer.json()["error"]["message"], answer.text
        assert answer.headers["x-should-retry"] == "false"
    await assert_nothing_recorded(database, key)


async def test_an_unknown_model_is_told_those_that_there_are_and_not_to_leave_it_out_of_the_path(
    client: httpx2.AsyncClient, key: Key
) -> None:
    answers = [await ask(client, key, model="no-such-model")]
    answers.append(await client.get("/v1beta/models/no-such-model", headers={"x-goog-api-key": key.raw}))
    for answer in answers:
        check_problem(answer, 404, "model_not_found")
        assert answer.json()["error"]["message"] == "There is no such model here; use nano-banana"


async def test_a_size_that_a_model_has_not_is_refused_with_those_that_it_has(start: Start) -> None:
    async with painted(start, gemini_sizes="1536x1024=3:2/1K, 2048x2048=1:1/2K") as there:
        config = {"imageConfig": {"aspectRatio": "16:9"}}
        answer = await ask(there.client, there.key, {**BANANA, "generationConfig": config})
        check_problem(answer, 422, "validation_error")
        assert answer.json()["error"]["message"].endswith("imageConfig: This model draws 1:1 at 2K, 3:2 at 1K")
        assert (await ask(there.client, there.key)).status_code == 200, "who names none gets what there is"
        assert len(there.provider.seen) == 1


@pytest.mark.parametrize(
    ("method", "path", "has_key", "status", "code"),
    [
        ("POST", DRAWING, False, 401, "invalid_api_key"),
        ("POST", "/v1beta/models/gemini-x:generateContent", True, 404, "model_not_found"),
        ("POST", f"/v1beta/models/{MODEL}:countTokens", True, 404, "not_found"),
        ("POST", f"/v1/models/{MODEL}:countTokens", True, 404, "not_found"),
        ("POST", "/v1beta/models", True, 405, "method_not_allowed"),
        ("GET", "/v1beta/models/gemini-x", True, 404, "model_not_found"),
        ("GET", "/v1/models/gemini-x", True, 404, "model_not_found"),
        ("GET", "/v1beta/models", False, 401, "invalid_api_key"),
        ("GET", "/v1/files", True, 404, "not_found"),
        ("POST", "/upload/v1beta/files", True, 404, "not_found"),
        ("POST", "/upload/v1/files", True, 404, "not_found"),
        ("POST", "/v1beta/openai/images/generations", True, 404, "not_found"),
    ],
)
async def test_what_googles_clients_ask_for_in_vain_is_refused_in_googles_format(
    client: httpx2.AsyncClient, key: Key, *, method: str, path: str, has_key: bool, status: int, code: str
) -> None:
    headers = google_key(key) if has_key else {}
    answer = await client.request(method, path, json=BANANA, headers=headers)
    assert "details" in answer.json()["error"], answer.text
    check_problem(answer, status, code)


async def test_paths_of_other_dialects_keep_their_format_whatever_header_the_key_is_in(
    client: httpx2.AsyncClient, key: Key
) -> None:
    native = await client.post("/v1/generate", json={}, headers=google_key(key))
    check_problem(native, 422, "validation_error", more=["errors"])
    assert native.headers["content-type"] == "application/problem+json"
    openais = await client.get("/v1/models/gemini-x", headers=key.headers)
    assert openais.json()["error"]["param"] == "model"
    assert (await client.get("/v1/files", headers=key.headers)).json()["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("GET", "/v1beta/models"), ("GET", "/v1/models/nano-banana"), ("POST", DRAWING)],
)
async def test_a_key_in_the_address_is_refused_with_the_reason_even_where_another_came_in_a_header(
    client: httpx2.AsyncClient, key: Key, database: asyncpg.Connection, *, method: str, path: str
) -> None:
    for headers in ({}, google_key(key), key.headers):
        answer = await client.request(method, f"{path}?alt=sse&key={key.raw}", json=BANANA, headers=headers)
        check_problem(answer, 400, "invalid_request")
        assert answer.json()["error"]["message"].endswith("x-goog-api-key: addresses get into logs")
        assert key.raw not in f"{answer.headers}{answer.text}"
    await assert_nothing_recorded(database, key)


async def test_a_limit_that_is_met_is_resource_exhausted_and_says_for_how_long(start: Start) -> None:
    client = await start(generate_limit_per_key="1/hour")
    key = await (await sign_up(client)).create_key()
    assert (await ask(client, key)).status_code == 200
    for method in ("generateContent", "streamGenerateContent"):
        check_problem(await ask(client, key, method=method), 429, "rate_limit_exceeded")


async def test_what_a_provider_fails_at_is_an_error_and_what_it_refuses_an_answer_without_an_image(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        for method in ("generateContent", "streamGenerateContent", "streamGenerateContent?alt=sse"):
            there.provider.faults.append(gemini.html())
            answer = await ask(there.client, there.key, method=method)
            check_problem(answer, 502, "provider_failed")
            assert answer.headers["x-should-retry"] == "false"
            there.provider.faults.append(gemini.blocked_prompt("SAFETY"))
            answer = await ask(there.client, there.key, method=method)
            assert answer.status_code == 200
            assert '"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}' in answer.text
            assert 'candidates":' not in answer.text
        statuses = await database.fetch("select status from generations where key_id = $1", there.key.id)
        assert [each["status"] for each in statuses] == ["failed"] * 6
