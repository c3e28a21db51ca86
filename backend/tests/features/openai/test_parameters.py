"""The parameters of OpenAI's route, row by row: what reaches the provider, what the answer says, what is refused."""

import base64
from pathlib import Path
from typing import NamedTuple

import httpx2
from app.features.openai.schemas import UNSUPPORTED
from tests.conftest import Start
from tests.features.generate.painted import painted_by_openai
from tests.features.generate.two_routes import ModelOfTwo, two_routes
from tests.features.openai.forms import EDITS, Part, data_url, file, picture, post_form
from tests.harness import JSON, Account, Key
from tests.problems import check_problem

ROUTE = "/v1/images/generations"
PROMPT = {"prompt": "A cute banana"}
ALL = {"openai_capabilities": "quality, transparent, compression"}
HINTS = {"style": "natural", "moderation": "low", "input_fidelity": "high", "user": "ada", "safety_identifier": "ada"}


class Row(NamedTuple):
    """What is asked for, which options reach a provider that takes all of them, and what the answer says of it."""

    body: JSON
    sent: JSON
    told: JSON | None = None


AS_PNG = {"output_format": "png"}
ROWS = [
    Row({}, AS_PNG),
    Row(HINTS, AS_PNG),
    Row({"quality": "auto", "background": "auto", "size": "auto", "partial_images": 3}, AS_PNG),
    Row({"quality": "standard"}, AS_PNG),
    Row({"quality": "hd"}, {**AS_PNG, "quality": "high"}, {"quality": "high"}),
    Row({"quality": "low"}, {**AS_PNG, "quality": "low"}, {"quality": "low"}),
    Row({"background": "opaque"}, {**AS_PNG, "background": "opaque"}),
    Row({"background": "transparent"}, {**AS_PNG, "background": "transparent"}),
    Row({"output_compression": 10}, AS_PNG),
    Row({"output_format": "webp"}, {"output_format": "webp"}),
    Row({"output_format": "jpeg", "output_compression": 100}, {"output_format": "jpeg"}),
    Row({"output_format": "jpeg", "output_compression": 0}, {"output_format": "jpeg", "output_compression": 0}),
]


async def ask(client: httpx2.AsyncClient, key: Key, body: JSON) -> httpx2.Response:
    return await client.post(ROUTE, json={**PROMPT, **body}, headers=key.headers)


async def test_each_parameter_reaches_a_provider_that_takes_it_and_no_other(start: Start) -> None:
    plain = {"model", "prompt", "n", "size"}
    async with painted_by_openai(start, **ALL) as able, painted_by_openai(start, openai_capabilities="") as unable:
        for row in ROWS:
            answer = await ask(able.client, able.key, row.body)
            assert answer.status_code == 200, answer.text
            call = able.provider.seen[-1].json()
            assert {name: call[name] for name in set(call) - plain} == row.sent, row.body
            told = answer.json()
            assert told.get("quality") == (row.told or {}).get("quality"), row.body
            assert (told["size"], told["output_format"]) == ("1024x1024", row.sent["output_format"])
            calls = len(unable.provider.seen)
            answer = await ask(unable.client, unable.key, row.body)
            if row.body.get("background") == "transparent":
                check_problem(answer, 400, "unsupported_parameter")
                assert answer.json()["error"]["param"] == "background"
                assert len(unable.provider.seen) == calls
            else:
                assert (answer.status_code, "quality" in answer.json()) == (200, False)
                assert set(unable.provider.seen[-1].json()) == plain


async def test_a_transparent_jpeg_is_refused_by_every_route_before_a_provider_is_asked(start: Start) -> None:
    wanted: JSON = {**PROMPT, "background": "transparent", "output_format": "jpeg"}
    source = data_url(picture())
    bodies: dict[str, JSON] = {
        ROUTE: wanted,
        "/v1/images": {**wanted, "input_references": [{"type": "image_url", "image_url": {"url": source}}]},
        EDITS: {**wanted, "images": [{"image_url": source}]},
    }
    async with painted_by_openai(start, **ALL) as there:
        refused = [await there.client.post(path, json=body, headers=there.key.headers) for path, body in bodies.items()]
        parts = [*(Part(name, text) for name, text in wanted.items()), file("image", picture())]
        for answer in [*refused, await post_form(there.client, there.key, parts)]:
            check_problem(answer, 400, "unsupported_parameter")
            error = answer.json()["error"]
            sentence = "A JPEG cannot be transparent; ask for output_format png or webp"
            assert (error["param"], error["message"]) == ("background", f"background: {sentence}")
        assert there.provider.seen == []
        for output_format in ("png", "webp", None):
            answer = await ask(there.client, there.key, {**wanted, "output_format": output_format})
            assert answer.status_code == 200, answer.text


async def test_a_lower_compression_is_a_smaller_file(start: Start) -> None:
    async with painted_by_openai(start, openai_capabilities="") as there:
        for output_format, begins in (("jpeg", b"\xff\xd8"), ("webp", b"RIFF")):
            files = []
            for compression in (10, 100):
                body = {"response_format": "b64_json", "output_format": output_format}
                answer = await ask(there.client, there.key, {**body, "output_compression": compression})
                files.append(base64.b64decode(answer.json()["data"][0]["b64_json"]))
            assert all(each.startswith(begins) for each in files)
            assert len(files[0]) < len(files[1])


async def test_each_parameter_of_other_apis_is_named_and_a_body_that_is_too_large_is_told_the_bound(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    for name in UNSUPPORTED:
        answer = await ask(client, key, {name: "1"})
        check_problem(answer, 400, "unsupported_parameter")
        assert answer.json()["error"]["param"] == name
    answer = await ask(client, key, {"prompt": "a" * 256 * 1024})
    check_problem(answer, 413, "body_too_large")
    assert "256 KiB" in answer.json()["error"]["message"]
    answer = await ask(client, key, {"prompt": "\U0001f34c" * 32_000})
    assert answer.status_code == 200, "four bytes each"


async def test_which_member_an_answer_has_goes_by_what_is_asked_for_and_then_by_the_model(
    start: Start, tmp_path: Path
) -> None:
    models = {"picture": ModelOfTwo('aliases = ["snap"]'), "free/banana": ModelOfTwo('answers = "b64_json"')}
    async with two_routes(start, tmp_path, models) as there:
        expected = [
            (None, None, "url"),
            ("picture", None, "url"),
            ("snap", None, "url"),
            ("free/banana", None, "b64_json"),
            ("free/banana", "url", "url"),
            *((name, None, "b64_json") for name in ("gpt-image-1", "chatgpt-image-latest")),
            *((name, None, "url") for name in ("dall-e-2", "dall-e-3", "gemini-2.5-flash-image", "imagen-4")),
            ("gpt-image-1", "url", "url"),
            ("dall-e-3", "b64_json", "b64_json"),
        ]
        for model, asked, member in expected:
            answer = await ask(there.client, there.key, {"model": model, "response_format": asked})
            assert answer.status_code == 200, answer.text
            assert [set(each) for each in answer.json()["data"]] == [{member}], model
            assert answer.headers["x-model"] == (model if model == "free/banana" else "picture")
        for path, missing in (("POST", ROUTE), ("GET", "/v1/models/gpt-4o")):
            answer = await there.client.request(
                path, missing, json={**PROMPT, "model": "gpt-4o"} if path == "POST" else None, headers=there.key.headers
            )
            check_problem(answer, 404, "model_not_found")
            error = answer.json()["error"]
            assert "use picture or free/banana, or leave model out" in error["message"]
            assert (error["param"], error["type"]) == ("model", "invalid_request_error")
        await check_models(there.client, there.key)


async def check_models(client: httpx2.AsyncClient, key: Key) -> None:
    """The list is OpenAI's, with what the models can do and cost beside it."""
    listed = (await client.get("/v1/models", headers=key.headers)).json()
    assert (set(listed), listed["object"]) == ({"object", "data"}, "list")
    first, second = listed["data"]
    assert (first["id"], first["is_default"], second["id"], second["is_default"]) == (
        "picture",
        True,
        "free/banana",
        False,
    )
    for each in (first, second):
        assert (each["object"], each["owned_by"], type(each["created"])) == ("model", "nanobanana", int)
        assert (each["price"], each["input_price"], each["currency"]) == ("0.05", "0", "USD")
        assert "1024x1024" in each["sizes"]
        assert not {"routes", "cost", "key", "provider"} & set(each)
    for name, found in (("picture", first), ("snap", first), ("free/banana", second), ("gpt-image-1", first)):
        assert (await client.get(f"/v1/models/{name}", headers=key.headers)).json() == found
    for path in ("/v1/models", "/v1/models/free/banana"):
        check_problem(await client.get(path), 401, "invalid_api_key")
        check_problem(await client.get(path, headers={"Authorization": "Bearer x"}), 401, "invalid_api_key")
        assert (await client.get(path)).headers["content-type"] == "application/json"
