"""`POST /v1/images/edits`: every form in which clients send images, what is answered, and what is refused."""

import base64
import json
from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from typing import NamedTuple

import asyncpg
import httpx2
import pytest
from PIL import Image
from tests.conftest import Start
from tests.features.generate.painted import painted_by_openai
from tests.features.openai.forms import BOUNDARY, EDITS, Part, data_url, file, form, picture, post_form, upload
from tests.features.openai.test_sdk import sdk_of
from tests.features.openai.test_streaming import EACH_EVENT, events_in
from tests.features.usage.recorded import total
from tests.harness import JSON, Account, Key
from tests.problems import check_problem
from tests.raw_http import head, send_raw
from tests.standins.forms import read_form

ONCE = {"Idempotency-Key": "once"}
PROMPT = Part("prompt", "Make it yellow")
IMAGE, MASK = file("image", picture()), file("mask", picture(mode="RGBA"), "mask.png")
SMALL = Part("size", "64x64")
MADE_UP = "canary_parameter"
INPUTS = "select inputs from generations where key_id = $1 order by id desc limit 1"


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


def several(*names: str) -> list[Part]:
    return [file(name, picture(number)) for number, name in enumerate(names)]


class Form(NamedTuple):
    """A form that a client sends, which images go in, and how many come out as what."""

    parts: Sequence[Part]
    images: Sequence[bytes] = (picture(),)
    images_out: int = 1
    kind: str = "PNG"
    size: tuple[int, int] = (64, 64)
    has_mask: bool = False
    is_chunked: bool = False


LIES = [
    file("image[]", picture(1, "WEBP"), "blob", "application/octet-stream"),
    file("image[]", picture(2, "JPEG"), "0b7c-uuid", "image/png"),
    Part("image[]", picture(3), "notes.txt"),
]
TEXTS = {
    "n": "2",
    "quality": "high",
    "background": "auto",
    "output_format": "webp",
    "output_compression": "100",
    "input_fidelity": "high",
    "moderation": "low",
    "stream": "false",
    "partial_images": "0",
    "user": "ada",
    "safety_identifier": "ada",
    "model": "gpt-image-2",
    "style": "",
}
_NUMBERS = Part("n", "1"), Part("partial_images", "0"), Part("output_compression", "100")
FORMS = {
    "one image": Form([PROMPT, IMAGE, SMALL]),
    "image first": Form([IMAGE, SMALL, PROMPT]),
    "a number and truths of Python's": Form([PROMPT, IMAGE, SMALL, *_NUMBERS, Part("stream", "False")]),
    "image[] for one": Form([PROMPT, SMALL, file("image[]", picture())]),
    "image[] for three": Form([PROMPT, SMALL, *several(*["image[]"] * 3)], [picture(each) for each in range(3)]),
    "image repeated": Form([PROMPT, SMALL, *several("image", "image")], [picture(0), picture(1)]),
    "both names": Form([*several("image[]", "image", "image[]"), SMALL, PROMPT], [picture(each) for each in range(3)]),
    "numbered": Form([PROMPT, SMALL, *several("image[0]", "image[1]")], [picture(0), picture(1)]),
    "sixteen": Form([PROMPT, SMALL, *several(*["image[]"] * 16)], [picture(each) for each in range(16)]),
    "a mask": Form([MASK, PROMPT, SMALL, IMAGE], has_mask=True),
    "names and types that lie": Form([PROMPT, SMALL, *LIES], [picture(1, "WEBP"), picture(2, "JPEG"), picture(3)]),
    "texts": Form([PROMPT, SMALL, IMAGE, *(Part(*each) for each in TEXTS.items())], images_out=2, kind="WEBP"),
    "chunked": Form([PROMPT, SMALL, IMAGE], is_chunked=True),
    "an image as a data: URL": Form([PROMPT, SMALL, Part("image", data_url(picture()))]),
    "size auto": Form([PROMPT, IMAGE, Part("size", "auto")], size=(1256, 840)),
    "no size": Form([PROMPT, IMAGE], size=(1256, 840)),
}


def images_in(answer: httpx2.Response) -> list[tuple[str | None, tuple[int, int]]]:
    """The format and the size of each image."""
    assert answer.status_code == 200, answer.text
    assert all({*each} == {"b64_json"} for each in answer.json()["data"])
    found = []
    for each in answer.json()["data"]:
        with Image.open(BytesIO(base64.b64decode(each["b64_json"], validate=True))) as opened:
            opened.load()
            found.append((opened.format, opened.size))
    return found


async def check_inputs(
    database: asyncpg.Connection, key: Key, images: Sequence[bytes], *, has_mask: bool = False
) -> None:
    """These images went in, in this order, and were changed in nothing."""
    recorded = json.loads(await database.fetchval(INPUTS, key.id))
    digests = [{"sha256": sha256(each).hexdigest()} for each in images]
    assert recorded[: len(images)] == digests
    assert [each["role"] for each in recorded[len(images) :]] == ["mask"] * has_mask


async def test_every_form_is_taken_and_its_images_go_in_in_order(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key
) -> None:
    counted = 0
    for name, sent in FORMS.items():
        answer = await post_form(client, key, sent.parts, is_chunked=sent.is_chunked)
        assert images_in(answer) == [(sent.kind, sent.size)] * sent.images_out, name
        await check_inputs(database, key, sent.images, has_mask=sent.has_mask)
        counted += sent.images_out
        assert await total(database, key) == counted
    first = (await client.get("/v1/generations", headers=key.headers)).json()[0]
    references: list[JSON] = [
        {"image_url": data_url(picture(2), "image/webp")},
        {"file_id": first["id"]},
        {"image_url": first["url"]},
    ]
    body = {"prompt": "a", "images": references, "mask": {"image_url": data_url(picture(mode="RGBA"))}, "size": "64x64"}
    answer = await client.post(EDITS, json={**body, "response_format": "url"}, headers=key.headers)
    [image] = answer.json()["data"]
    assert {*image} == {"url"}
    recorded = json.loads(await database.fetchval(INPUTS, key.id))
    assert [each.get("id") for each in recorded] == [None, first["id"], first["id"], None]


WRONG: list[tuple[list[Part], int, str, str | None]] = [
    ([PROMPT], 422, "validation_error", "image"),
    ([PROMPT, *several(*["image[]"] * 17)], 422, "validation_error", "image"),
    ([IMAGE], 422, "validation_error", "prompt"),
    ([IMAGE, Part("prompt", "")], 422, "validation_error", "prompt"),
    ([IMAGE, PROMPT, PROMPT], 400, "invalid_request", None),
    ([IMAGE, PROMPT, MASK, MASK], 400, "invalid_request", None),
    ([IMAGE, PROMPT, Part("n", "two")], 422, "validation_error", "n"),
    ([IMAGE, PROMPT, Part("n", "11")], 422, "validation_error", "n"),
    *(
        ([IMAGE, PROMPT, Part("n", n)], 422, "validation_error", "n")
        for n in ("1_0", "+1", " 2 ", "01", "1.0", "1e0", "\u0661")
    ),
    *(
        ([IMAGE, PROMPT, Part("stream", truth)], 422, "validation_error", "stream")
        for truth in ("maybe", "yes", "on", "t", "1", "TRUE", " true")
    ),
    ([IMAGE, PROMPT, Part("output_compression", "-1")], 422, "validation_error", "output_compression"),
    ([IMAGE, PROMPT, Part("size", "1x1")], 422, "validation_error", "size"),
    ([IMAGE, PROMPT, Part("seed", "1")], 400, "unsupported_parameter", "seed"),
    ([IMAGE, PROMPT, Part(MADE_UP, "1")], 400, "unsupported_parameter", None),
    ([IMAGE, PROMPT, file("markup", picture())], 400, "unsupported_parameter", "markup"),
    ([IMAGE, PROMPT, file(MADE_UP, picture())], 400, "unsupported_parameter", None),
    ([IMAGE, PROMPT, Part("model", MADE_UP)], 404, "model_not_found", "model"),
    ([PROMPT, IMAGE, file("image", MADE_UP.encode())], 422, "validation_error", "image[1]"),
    ([PROMPT, Part("image", MADE_UP)], 422, "validation_error", "image[0]"),
    ([PROMPT, IMAGE, file("mask", MADE_UP.encode())], 422, "validation_error", "mask"),
    ([PROMPT, IMAGE, file("mask", form([IMAGE]))], 422, "validation_error", "mask"),
]
WRONG_JSON: list[tuple[JSON, str]] = [
    ({}, "images"),
    ({"images": []}, "images"),
    ({"images": [{}]}, "images[0]"),
    ({"images": [{"file_id": "file-abc", "image_url": "https://images.example.com/a.png"}]}, "images[0]"),
    ({"images": [{"file_id": "file-abc"}]}, "images[0].file_id"),
    ({"images": [{"image_url": "file:///etc/passwd"}]}, "images[0].image_url"),
    ({"images": [{"image_url": "data:image/png;base64,!"}]}, "images[0].image_url"),
    ({"images": [{"image_url": data_url(b"no image")}]}, "images[0].image_url"),
    ({"images": [{"image_url": data_url(picture())}], "mask": {"image_url": data_url(b"no image")}}, "mask"),
]


async def test_what_cannot_be_edited_is_refused_by_name_in_openais_shape_and_not_quoted(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key
) -> None:
    answers = [(await post_form(client, key, parts), expected) for parts, *expected in WRONG]
    for body, param in WRONG_JSON:
        answer = await client.post(EDITS, json={"prompt": "a", **body}, headers=key.headers)
        answers.append((answer, [422, "validation_error", param]))
    unknown = {"prompt": "a", "images": [{"image_url": data_url(picture())}], "seed": 1}
    answers.append(
        (await client.post(EDITS, json=unknown, headers=key.headers), [400, "unsupported_parameter", "seed"])
    )
    for answer, expected in answers:
        error = answer.json()["error"]
        check_problem(answer, answer.status_code, error["code"])
        assert [answer.status_code, error["code"], error["param"]] == expected, answer.text
        assert MADE_UP not in answer.text
        assert "passwd" not in answer.text
    assert await total(database, key) == 0


async def test_an_edit_is_drawn_by_the_provider_and_streamed_as_events_of_its_own(
    start: Start, database: asyncpg.Connection
) -> None:
    able = {"openai_capabilities": "quality, compression, stream, edit, mask, references:16"}
    async with painted_by_openai(start, **able) as there, sdk_of(there.client, there.key) as sdk:
        options = {"quality": "high", "output_format": "webp", "input_fidelity": "high", "size": "1024x1024"}
        stream = await sdk.images.edit(
            image=[picture(1), ("second.jpg", picture(2, "JPEG"))],
            mask=picture(mode="RGBA"),
            prompt="Make it yellow",
            stream=True,
            partial_images=2,
            extra_body=options,
        )
        *sketches, last = [event.model_dump() async for event in stream]
        assert 1 <= len(sketches) <= 2
        assert {each["type"] for each in sketches} == {"image_edit.partial_image"}
        assert ({*last} >= EACH_EVENT | {"usage"}, last["type"]) == (True, "image_edit.completed")
        texts, files = read_form(there.provider.seen[-1])
        assert [(each.field, each.media_type) for each in files] == [
            ("image[]", "image/png"),
            ("image[]", "image/jpeg"),
            ("mask", "image/png"),
        ]
        assert [each.content for each in files[:2]] == [picture(1), picture(2, "JPEG")]
        assert (texts["quality"], texts["output_format"], texts["stream"]) == ("high", "webp", "true")
        assert "input_fidelity" not in texts
        assert await total(database, there.key) == 1
        answer = await post_form(there.client, there.key, [PROMPT, IMAGE, Part("stream", "True"), Part("n", "2")])
        assert [event.data["type"] for event in events_in(answer)] == ["image_edit.completed"] * 2


async def test_a_repeated_edit_is_a_replay_and_one_of_another_image_is_not(
    client: httpx2.AsyncClient, database: asyncpg.Connection, key: Key
) -> None:
    parts = [PROMPT, SMALL, IMAGE, MASK]
    first = await post_form(client, key, parts, headers=ONCE)
    again = await post_form(client, key, [IMAGE, SMALL, MASK, PROMPT], is_chunked=True, headers=ONCE)
    assert (first.status_code, "idempotent-replayed" in first.headers) == (200, False)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    for other in (
        [*parts[:2], MASK, file("image", picture(1))],
        [*parts[:3]],
        [*parts[:2], *several("image", "image")],
    ):
        check_problem(await post_form(client, key, other, headers=ONCE), 422, "idempotency_key_reused")
    assert await total(database, key) == 1


async def test_images_of_another_account_or_environment_are_not_there(
    client: httpx2.AsyncClient, database: asyncpg.Connection, account: Account, other_account: Account, key: Key
) -> None:
    first = {"image_url": data_url(picture())}
    for other in (key, await other_account.create_key(), await account.create_key(environment="test")):
        assert (await post_form(client, other, [PROMPT, SMALL, IMAGE])).status_code == 200
        made = (await client.get("/v1/generations", headers=other.headers)).json()[0]
        uploaded = await upload(client, other)
        for member, name in (
            *(("file_id", made["id"]), ("image_url", made["url"])),
            *(("file_id", uploaded), ("image_url", uploaded)),
        ):
            body: JSON = {"prompt": "a", "size": "64x64", "images": [first, {member: name}]}
            answer = await client.post(EDITS, json=body, headers=key.headers)
            if other == key:
                assert answer.status_code == 200, answer.text
                continue
            masked = {**body, "images": [first], "mask": {member: name}}
            answers = [answer, await client.post(EDITS, json=masked, headers=key.headers)]
            for refused, param in zip(answers, (f"images[1].{member}", "mask"), strict=True):
                check_problem(refused, 422, "validation_error")
                assert refused.json()["error"]["param"] == param
                assert "There is no such" in refused.json()["error"]["message"]
    assert await total(database, key) == 1 + 4


@pytest.mark.parametrize("size", [10, 700_000])
async def test_an_image_in_the_wrong_place_is_told_what_belongs_there_however_large_it_is(
    client: httpx2.AsyncClient, key: Key, size: int
) -> None:
    source = f"data:image/png;base64,{'A' * size}"
    for path, wrong, message in (
        (EDITS, {"images": [source]}, "images[0]: Must be a JSON object"),
        (EDITS, {"images": source}, "images: Input should be a valid list"),
        (EDITS, {"images": [{"image_url": {"url": source}}]}, "images[0].image_url: Input should be a valid string"),
        (EDITS, {"image": source, "images": [{"image_url": source}]}, "image: This parameter cannot be honoured"),
        ("/v1/images", {"input_references": [source]}, "input_references[0]: Must be a JSON object"),
        ("/v1/images", {"image": source}, "image: This parameter cannot be honoured"),
        ("/v1/generate", {"images": source}, "images: Input should be a valid list"),
        ("/v1/generate", {"image": source}, "An unknown field; known are: prompt"),
        ("/v1/chat/completions", {"messages": [source]}, "messages[0]: Must be a JSON object"),
    ):
        answer = await client.post(path, json={"prompt": "a", **wrong}, headers=key.headers)
        assert answer.status_code in {400, 422}, answer.text
        assert answer.json()["error"]["message"].removeprefix("The request is not valid. ").startswith(message)


async def test_a_text_that_is_too_large_is_told_the_bound_though_it_looks_like_an_image(
    client: httpx2.AsyncClient, key: Key
) -> None:
    text, image = "A" * 300_000, {"image_url": data_url(picture())}
    for path, body in (
        (EDITS, {"prompt": text, "images": [image]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}),
    ):
        answer = await client.post(path, json=body, headers=key.headers)
        check_problem(answer, 413, "body_too_large")
        assert answer.json()["error"]["message"] == "The body is larger than 256 KiB"


@pytest.mark.parametrize("media_type", ["text/plain", "application/json-patch+json", ""])
async def test_a_body_of_another_type_is_told_both_that_are_taken(
    client: httpx2.AsyncClient, key: Key, media_type: str
) -> None:
    answer = await client.post(EDITS, content=b"{}", headers={**key.headers, "Content-Type": media_type})
    check_problem(answer, 415, "unsupported_media_type")
    message = answer.json()["error"]["message"]
    assert message == "Send the body as Content-Type: multipart/form-data or application/json"


async def test_a_form_that_is_too_large_is_told_the_bound_before_it_is_read(start: Start) -> None:
    client = await start(body_bytes_max_with_images=1024 * 1024)
    typed = ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    answer = await send_raw(client, head("POST", EDITS, [typed, ("Content-Length", str(1024 * 1024 + 1))]))
    check_problem(answer, 413, "body_too_large")
    assert answer.json()["error"]["message"] == "The body is larger than 1 MiB"
