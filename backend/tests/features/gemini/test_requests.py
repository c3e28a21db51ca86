"""What clients of Google's send, in every form that was seen on the wire, and what a provider is asked for then."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2
from tests.conftest import Start
from tests.features.gemini.asked import ask, image_in, inline, noise, opened, png, sent_on
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import JSON, Account, generate, sign_up
from tests.problems import check_problem

RED, BLUE, GREEN = png("red", 96, 64), png("blue", 64, 64), png("lime", 64, 96)
LARGE = noise(480, 320)
OF_RED, OF_BLUE, OF_GREEN = (96, 64), (64, 64), (64, 96)
TEXT, OTHER = {"text": "A cute banana"}, {"text": "A rude one"}
URL_SAFE = base64.urlsafe_b64encode(RED).decode()
DATA_URL = f"data:image/png;base64,{inline(RED)}"


def image(content: bytes) -> JSON:
    return {"inlineData": {"mimeType": "image/png", "data": inline(content)}}


def user(*parts: JSON) -> JSON:
    return {"role": "user", "parts": list(parts)}


def model(*parts: JSON) -> JSON:
    return {"role": "model", "parts": list(parts)}


@dataclass(frozen=True)
class Form:
    """A request, and what the provider is asked for: a prompt, images by their sizes, a ratio and a size class; and the
    size of the image in the response.
    """

    name: str
    contents: Any
    more: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = "A cute banana"
    images: Sequence[tuple[int, int]] = ()
    frame: tuple[str, str] = ("1:1", "1K")
    size: tuple[int, int] = (128, 128)


def edit(name: str, part: JSON) -> Form:
    """The red image in one of its forms, whose shape is that of the answer."""
    return Form(name, [user(part, TEXT)], images=[OF_RED], frame=("3:2", "1K"), size=(96, 64))


def configured(name: str, config: JSON, **expected: Any) -> Form:
    return Form(name, [user(TEXT)], {"generationConfig": config}, **expected)


SIZES = "128x128=1:1/1K, 96x64=3:2/1K, 160x90=16:9/2K, 210x90=21:9/1K"
FORMS = [
    Form("a text", [user(TEXT)]),
    Form("no role and no configuration", [{"parts": [TEXT]}]),
    Form("objects instead of lists", {"parts": TEXT}),
    Form("nulls", [{"role": None, "parts": [{**TEXT, "inlineData": None}]}], {"generationConfig": None}),
    Form("several texts", [user(TEXT, OTHER)], prompt="A cute banana\nA rude one"),
    Form("turns of the user's, one after another", [user(TEXT), user(OTHER)], prompt="A cute banana\nA rude one"),
    edit("camelCase", image(RED)),
    edit("snake_case", {"inline_data": {"mime_type": "image/png", "data": inline(RED)}}),
    edit("camelCase with snake_case in it", {"inlineData": {"mime_type": "audio/wav", "data": inline(RED)}}),
    edit("URL-safe base64", {"inlineData": {"data": URL_SAFE}}),
    edit("URL-safe base64 without padding", {"inlineData": {"data": URL_SAFE.rstrip("=")}}),
    edit("a data: URL as a file", {"file_data": {"fileUri": DATA_URL}}),
    Form("an image behind the text", [user(TEXT, image(BLUE))], images=[OF_BLUE]),
    Form(
        "an image that is larger than a request without one may be",
        [user(image(LARGE), TEXT)],
        images=[(480, 320)],
        frame=("3:2", "1K"),
        size=(96, 64),
    ),
    Form("two images", [user(image(BLUE), image(RED), TEXT)], images=[OF_BLUE, OF_RED]),
    Form(
        "an image and a ratio",
        [user(image(RED), TEXT)],
        {"generationConfig": {"imageConfig": {"aspectRatio": "1:1"}}},
        images=[OF_RED],
    ),
    Form(
        "a chat about the last image in it",
        [user(OTHER, image(GREEN)), model(image(GREEN)), model(OTHER, image(BLUE)), user(TEXT)],
        images=[OF_BLUE],
    ),
    Form(
        "a chat with an image in its last turn",
        [user(OTHER), model(image(BLUE)), user(image(RED)), user(TEXT)],
        images=[OF_BLUE, OF_RED],
    ),
    Form("a turn of the model's at the end", [user(TEXT), model(OTHER)]),
    Form("thoughts", [user(OTHER), model({**image(RED), "thought": True}), user(TEXT, {**OTHER, "thought": True})]),
    Form(
        "a system instruction",
        [user(TEXT)],
        {"systemInstruction": {"parts": {"text": "Paint"}}},
        "Paint\n\nA cute banana",
    ),
    Form(
        "a system instruction in snake_case",
        [user(TEXT)],
        {"system_instruction": user({"text": "Paint"})},
        "Paint\n\nA cute banana",
    ),
    configured(
        "a ratio and a size",
        {"imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"}},
        frame=("16:9", "2K"),
        size=(160, 90),
    ),
    configured(
        "a configuration in both spellings",
        {"response_modalities": ["TEXT", "IMAGE"], "imageConfig": {"aspect_ratio": "21:9"}, "candidate_count": 1},
        frame=("21:9", "1K"),
        size=(210, 90),
    ),
    configured("modalities as Google's documentation writes them", {"responseModalities": ["Text", "Image"]}),
    configured("what is without an effect", {"seed": 1, "temperature": 0.5, "topK": "40"}),
]


async def test_every_form_that_clients_send_asks_the_provider_for_what_it_says(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, gemini_sizes=SIZES) as there:
        for version, form in [("v1", FORMS[0]), *(("v1beta", form) for form in FORMS)]:
            there.provider.seen.clear()
            body = {"contents": form.contents, **form.more}
            answer = await ask(there.client, there.key, body, version=version)
            assert answer.status_code == 200, (form.name, answer.text)
            assert opened(image_in(answer.json())) == ("PNG", form.size), form.name
            [seen] = there.provider.seen
            prompt, images, frame = sent_on(seen.json())
            assert (prompt, images, frame) == (form.prompt, list(form.images), form.frame), form.name
        assert await total(database, there.key) == len(FORMS) + 1


async def test_an_image_of_ours_goes_in_by_its_url_or_its_id(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key, stranger = [await each.create_key(environment="test") for each in (account, await sign_up(client))]
    made = (await generate(client, key, size="64x64")).json()
    for uri in (made["id"], made["url"]):
        body = {"contents": [user({"fileData": {"fileUri": uri, "mimeType": "image/png"}}, TEXT)]}
        answer = await ask(client, key, body)
        assert opened(image_in(answer.json())) == ("PNG", (1024, 1024))
        inputs = await database.fetchval("select inputs from generations where id = $1", answer.json()["responseId"])
        assert [each.get("id") for each in json.loads(inputs)] == [made["id"]]
        check_problem(await ask(client, stranger, body), 422, "validation_error")
