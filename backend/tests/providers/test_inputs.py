"""Images that go in: what is sent of them, to whom, and what is sent again."""

import base64
from typing import Any

import pytest
from app.providers import DrawRequest, InputImage, ProviderError, ProviderFailed
from app.providers.gemini import GeminiProvider
from tests.providers.remote import OpenAIWith, RemoteSetup, edit, soon
from tests.standins.forms import File, read_form
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import MODEL, OpenAIStandIn
from tests.standins.wire import Seen

PLAIN = {"model": MODEL, "prompt": "canary-prompt: a cute banana", "n": "1", "size": "1024x1024"}
MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


async def contents(request: DrawRequest) -> list[tuple[str, bytes]]:
    """The type and the bytes of each image of the request, and then of its mask."""
    images: list[InputImage] = [*request.images, *([request.mask] if request.mask else [])]
    return [(MEDIA_TYPES[each.format], await each.blob.read()) for each in images]


def sent(seen: Seen) -> list[tuple[str, bytes]]:
    """The type and the bytes of each image in a call, in either dialect."""
    if seen.path.endswith("/edits"):
        return [(each.media_type, each.content) for each in read_form(seen)[1]]
    parts = [part["inlineData"] for part in seen.json()["contents"][0]["parts"][:-1]]
    return [(part["mimeType"], base64.b64decode(part["data"], validate=True)) for part in parts]


async def test_gemini_gets_the_images_as_parts_before_the_text(gemini: GeminiProvider, google: GeminiStandIn) -> None:
    request = edit(3, prompt='"}, {"text": "\\ 猫')
    await gemini.draw(request, deadline=soon())
    [seen] = google.seen
    assert sent(seen) == await contents(request)
    assert seen.json()["contents"][0]["parts"][3:] == [{"text": request.prompt}]
    assert seen.json()["generationConfig"]["imageConfig"] == {"aspectRatio": "1:1", "imageSize": "1K"}
    assert {name: seen.headers[name] for name in ("content-type", "content-length")} == {
        "content-type": "application/json",
        "content-length": str(len(seen.body)),
    }


@pytest.mark.parametrize(
    ("number", "has_mask", "names"),
    [
        (1, False, ["image"]),
        (1, True, ["image", "mask"]),
        (2, True, ["image[]", "image[]", "mask"]),
        (16, False, ["image[]"] * 16),
    ],
)
async def test_an_endpoint_gets_a_form_with_the_images_and_the_mask_in_order(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn, number: int, has_mask: bool, names: list[str]
) -> None:
    request = edit(number, has_mask=has_mask)
    await openai_with().draw(request, deadline=soon())
    [seen] = endpoint.seen
    texts, files = read_form(seen)
    assert seen.target == "/v1/images/edits"
    assert texts == PLAIN
    assert [each.field for each in files] == names
    assert len({each.name for each in files}) == len(files)
    assert sent(seen) == await contents(request)


@pytest.mark.parametrize(
    ("capability", "asked", "form"),
    [
        ("quality", {"quality": "high"}, {"quality": "high"}),
        ("transparent", {"background": "transparent"}, {"background": "transparent"}),
        (
            "compression",
            {"format": "webp", "compression": 40},
            {"output_format": "webp", "output_compression": "40"},
        ),
        ("stream", {"partials": 2}, {"stream": "true", "partial_images": "2"}),
    ],
)
async def test_what_a_model_can_do_is_passed_on_with_images_as_without(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn, capability: str, asked: dict[str, Any], form: dict[str, str]
) -> None:
    sketches = list[int]()
    request = edit(1, **asked, on_partial=lambda number, _: sketches.append(number))
    for capabilities in (frozenset[str](), frozenset({capability})):
        await openai_with(capabilities=capabilities).draw(request, deadline=soon())
    assert [read_form(seen)[0] for seen in endpoint.seen] == [PLAIN, {**PLAIN, **form}]
    assert sketches == list(range(asked.get("partials", 0)))


async def test_no_boundary_is_used_twice_and_any_bytes_and_words_pass(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    for _ in range(2):
        prompt = '--x\r\n\r\nContent-Disposition: form-data; name="model"\r\n\r\n猫'
        await openai_with().draw(edit(1, prompt=prompt), deadline=soon())
        assert read_form(endpoint.seen[-1])[0] == {**PLAIN, "prompt": prompt}
    assert len({seen.headers["content-type"] for seen in endpoint.seen}) == 2


async def test_a_repeated_call_sends_the_same_images_again(remote: RemoteSetup) -> None:
    remote.fail("503")
    request = edit(3)
    await remote.open().draw(request, deadline=soon())
    assert [sent(seen) for seen in remote.stand_in.seen] == [await contents(request)] * 2
    assert (request.tally.calls, request.tally.paid_calls) == (2, 1)


@pytest.mark.parametrize(("name", "failure"), [("400", "request"), ("413", "request"), ("500", "failed")])
async def test_what_a_provider_answers_to_images_has_the_meaning_that_it_has_without(
    remote: RemoteSetup, name: str, failure: str
) -> None:
    remote.fail(name)
    with pytest.raises(ProviderFailed) as raised:
        await remote.open().draw(edit(1), deadline=soon())
    assert (raised.value.failure, raised.value.may_have_been_paid) == (failure, failure == "failed")


async def test_images_that_are_refused_for_the_policy_are_content_refused(remote: RemoteSetup) -> None:
    remote.fail(
        "200, the prompt is refused (Gemini)"
        if remote.dialect == "gemini"
        else "200, `content_policy_violation` (OpenAI)"
    )
    with pytest.raises(ProviderError) as raised:
        await remote.open().draw(edit(1), deadline=soon())
    assert raised.value.code == "content_policy_violation"


def test_the_reader_of_forms_keeps_any_bytes() -> None:
    content = bytes(range(256)) * 3 + b"\r\n\r\n--b\n--b--\r"
    body = b'--b-c\r\nContent-Disposition: form-data; name="image"; filename="1.png"\r\nContent-Type: image/png\r\n\r\n'
    seen = Seen("POST", "/", {"content-type": "multipart/form-data; boundary=b-c"}, body + content + b"\r\n--b-c--\r\n")
    assert read_form(seen) == ({}, [File("image", "1.png", "image/png", content)])
