"""Below /v1, problem documents hold the error in OpenAI's format too: clients of OpenAI's API ask for paths that there
are not here, and show nothing else of an answer.
"""

import httpx2
import openai
import pytest
from app.core.settings import Settings
from tests.features.openai.test_sdk import sdk_of
from tests.harness import JSON, Account, Key
from tests.problems import check_problem
from tests.raw_http import head, send_raw

IMAGES, CHAT, VARIATIONS = "/v1/images/generations", "/v1/chat/completions", "/v1/images/variations"
INVALID = "The request is not valid"
LACKS_VERSION = "The base URL lacks its version: it ends in /v1"
LARGE = [("Content-Length", "1073741824")]


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


@pytest.mark.parametrize(
    ("request_", "status", "code", "kind"),
    [
        (head("POST", "/v1/audio/speech"), 404, "not_found", "invalid_request_error"),
        (head("POST", VARIATIONS, LARGE), 404, "not_found", "invalid_request_error"),
        (head("GET", "/v1"), 404, "not_found", "invalid_request_error"),
        (head("GET", "/v1/a%0ab"), 404, "not_found", "invalid_request_error"),
        (head("PATCH", "/v1/generate"), 405, "method_not_allowed", "invalid_request_error"),
        (head("POST", "/v1/generate", LARGE), 413, "body_too_large", "invalid_request_error"),
        (head("POST", "/v1/generate"), 401, "invalid_api_key", "authentication_error"),
        (head("GET", "/v1/keys"), 401, "invalid_token", "authentication_error"),
        (head("GET", f"/v1/{'a' * 9000}"), 414, "uri_too_long", "invalid_request_error"),
        (head("GET", "/v1/models", [("A", "a" * 17_000)]), 431, "headers_too_large", "invalid_request_error"),
        (b"POST /v1/generate HTTP/9\r\n\r\n", 400, "invalid_request", "invalid_request_error"),
    ],
    ids=lambda value: value.partition(b" HTTP")[0][:30].decode() if isinstance(value, bytes) else None,
)
async def test_an_error_below_v1_is_there_in_openais_format_too(
    client: httpx2.AsyncClient, request_: bytes, status: int, code: str, kind: str
) -> None:
    answer = await send_raw(client, request_)
    check_problem(answer, status, code)
    told = answer.json()
    assert told["error"] == {"message": told["detail"], "type": kind, "param": None, "code": code}


@pytest.mark.parametrize("path", ["/nothing", "/v2", "/v1x"])
async def test_no_other_path_has_it(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    check_problem(answer, 404, "not_found")
    assert "error" not in answer.json()


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/generate", {"prompt": 1}, f"{INVALID}. prompt: Input should be a valid string"),
        (IMAGES, {}, f"{INVALID}. prompt: Field required"),
        (IMAGES, {"prompt": "a", "n": "2", "style": 1}, f"{INVALID}. n: Input should be a valid integer. style: "),
        (CHAT, {"messages": [{"content": "a"}]}, f"{INVALID}. messages[0].role: Field required"),
        (IMAGES, {"prompt": "a", "seed": 3}, "seed: This parameter cannot be honoured; leave it out"),
        (IMAGES, {"prompt": "a", "background": "transparent"}, "background: This model draws no transparent images"),
        (CHAT, {"messages": [{"role": "user"}], "modalities": ["image"], "n": 2}, "n: One image is made for a request"),
        (IMAGES, {"prompt": "a", "canary": 3}, "There is a parameter that nobody knows"),
    ],
)
async def test_the_message_names_the_fields_that_are_wrong(
    client: httpx2.AsyncClient, key: Key, path: str, body: JSON, message: str
) -> None:
    told = (await client.post(path, json=body, headers=key.headers)).json()["error"]
    assert told["message"].startswith(message)
    if told["param"] is not None:
        assert f"{told['param']}: " in told["message"]


async def test_the_sdk_shows_the_sentence_of_a_path_that_there_is_not(client: httpx2.AsyncClient, key: Key) -> None:
    async with sdk_of(client, key) as sdk:
        with pytest.raises(openai.NotFoundError, match="There is nothing here"):
            await sdk.files.list()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/v1/audio/transcriptions", "There is nothing here"),
        (VARIATIONS, "Variations of an image are not offered"),
        ("/v1/responses", "Responses are not offered here; ask for images at /v1/images/generations"),
        ("/v1/v1/images/edits", "The base URL has /v1 twice"),
    ],
)
async def test_a_large_file_for_a_path_that_there_is_not_is_a_404_that_says_so(
    client: httpx2.AsyncClient, key: Key, path: str, sentence: str
) -> None:
    answer = await client.post(path, files={"image": bytes(10 * 1024 * 1024)}, headers=key.headers)
    check_problem(answer, 404, "not_found")
    assert answer.json()["error"]["message"].startswith(sentence)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models"),
        ("GET", "/models/nano-banana"),
        ("POST", "/models"),
        ("GET", "/usage"),
        ("POST", "/keys"),
        ("POST", "/images/generations"),
        ("POST", "/generate"),
    ],
)
async def test_a_client_whose_base_url_lacks_the_version_is_told_so(
    client: httpx2.AsyncClient, settings: Settings, key: Key, method: str, path: str
) -> None:
    for headers in (key.headers, {"api-key": key.raw}):
        answer = await client.request(method, path, headers=headers)
        check_problem(answer, 404, "not_found")
        told = answer.json()
        assert told["detail"] == f"{LACKS_VERSION}, as {settings.public_url}/v1 does"
        assert told["error"]["message"] == told["detail"]


async def test_what_openais_clients_alone_ask_for_is_told_so_without_a_key_too(client: httpx2.AsyncClient) -> None:
    for path in ("/images/generations", "/images/edits", "/chat/completions", "/responses"):
        answer = await client.post(path)
        check_problem(answer, 404, "not_found")
        assert answer.json()["error"]["message"].startswith(LACKS_VERSION)


async def test_the_sdk_shows_that_its_base_url_lacks_the_version(client: httpx2.AsyncClient, key: Key) -> None:
    async with sdk_of(client, key) as sdk:
        sdk.base_url = client.base_url
        for call in (sdk.models.list(), sdk.images.generate(prompt="a"), sdk.responses.create(input="a")):
            with pytest.raises(openai.NotFoundError, match=LACKS_VERSION):
                await call


async def test_googles_clients_are_told_their_version_in_their_format(
    client: httpx2.AsyncClient, settings: Settings, key: Key
) -> None:
    answer = await client.post("/models/gemini-2.5-flash-image:generateContent", headers={"x-goog-api-key": key.raw})
    error = answer.json()["error"]
    assert (answer.status_code, error["status"]) == (404, "NOT_FOUND")
    assert (
        error["message"] == f"The base URL lacks its version: it ends in /v1beta, as {settings.public_url}/v1beta does"
    )


async def test_browsers_and_programs_with_other_tokens_are_answered_as_ever(
    client: httpx2.AsyncClient, key: Key
) -> None:
    browser = {**key.headers, "Accept": "text/html,application/xhtml+xml"}
    for headers in ({}, browser):
        assert (await client.get("/models", headers=headers)).headers["location"] == "/log-in?next=models"
    for path, status in (("/metrics", 404), ("/health", 200)):
        answer = await client.get(path, headers={"Authorization": "Bearer a-token"})
        assert (answer.status_code, "base URL" in answer.text) == (status, False)
    check_problem(await client.post("/health", headers=key.headers), 405, "method_not_allowed")
