"""Images that go in: what is sent of them, to whom, and what is sent again."""

import asyncio
import base64
from dataclasses import replace
from hashlib import shake_256
from io import BytesIO
from typing import Any

import pytest
from app.catalogue.breaker import Breaker
from app.catalogue.model import Model, Route
from app.catalogue.routing import ImageTries, OpenRoute, Plan, RoutedRequest
from app.core.blobs import Blob
from app.core.fair_queue import FairPool
from app.core.images import ImageFormat
from app.core.metrics import Metrics
from app.providers import DrawRequest, InputImage, ProviderError, ProviderFailed, Size, inputs
from app.providers.gemini import GeminiProvider
from app.providers.inputs import CallLimits, InputFitting, shares_of
from app.providers.intake import InputLimits, TakenIn, bring_below
from PIL import Image
from tests.providers.failures import BY_NAME
from tests.providers.remote import OpenAIWith, OpenUpstream, RemoteSetup, edit, mask_of, soon
from tests.standins.forms import File, read_form
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import MODEL, OpenAIStandIn
from tests.standins.wire import Seen, conversing

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


def noise(width: int, height: int, *, image_format: ImageFormat = "png", seed: str = "") -> InputImage:
    """An image that no encoder makes much smaller: a PNG of three bytes a pixel."""
    image = Image.frombytes("RGB", (width, height), shake_256(seed.encode()).digest(3 * width * height))
    encoded = BytesIO()
    image.save(encoded, image_format, compress_level=0)
    return InputImage(Blob(encoded.getvalue()), image_format, Size(width, height))


LARGE = noise(1500, 1500)


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


async def test_the_next_route_gets_the_images_that_the_first_one_did_not_draw(
    gemini: GeminiProvider, google: GeminiStandIn, openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    google.faults.append(BY_NAME["503"].gemini)
    routes = [
        OpenRoute(Route(name=each.name, provider="openai"), each, Breaker(each.name), Metrics())
        for each in (gemini, openai_with())
    ]
    model = Model(name="picture", title="Picture", routes=[each.route for each in routes])
    request, tries = edit(3), ImageTries()
    await RoutedRequest(Plan(model, request.size, "auto", routes, 0), request, "acc_1", soon()).draw(tries)
    assert [sent(seen) for seen in (*google.seen, *endpoint.seen)] == [await contents(request)] * 2
    assert (tries.route, tries.calls, tries.paid_calls) == ("openai", 2, 1)


@pytest.mark.parametrize(("name", "failure"), [("400", "request"), ("413", "request"), ("500", "failed")])
async def test_what_a_provider_answers_to_images_has_the_meaning_that_it_has_without(
    remote: RemoteSetup, name: str, failure: str
) -> None:
    remote.fail(name)
    with pytest.raises(ProviderFailed) as raised:
        await remote.open().draw(edit(1), deadline=soon())
    assert (raised.value.failure, raised.value.may_have_been_paid) == (failure, failure == "failed")


@pytest.mark.parametrize(("status", "failure"), [(413, "request"), (503, "busy"), (500, "failed")])
@pytest.mark.parametrize("is_closed", [True, False], ids=["it closes", "it waits"])
async def test_an_answer_before_the_images_were_sent_is_paid_or_not_as_its_status_says(
    remote: RemoteSetup, status: int, failure: str, *, is_closed: bool
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Early\r\nContent-Length: 100\r\n\r\n{" % status)
        await writer.drain()
        if not is_closed:
            writer.write(b" " * 98 + b"}")
            await asyncio.Event().wait()

    async with conversing(refuse) as url:
        request = replace(edit(0), images=[LARGE])
        with pytest.raises(ProviderError) as raised:
            await remote.open(url, attempts_max=1).draw(request, deadline=soon())
    assert (raised.value.failure, raised.value.provider_status) == (failure, status)
    assert raised.value.may_have_been_paid is (failure == "failed")
    assert (request.tally.calls, request.tally.paid_calls) == (1, failure == "failed")


async def test_images_that_are_refused_for_the_policy_are_content_refused(remote: RemoteSetup) -> None:
    remote.fail(
        "200, the prompt is refused (Gemini)"
        if remote.dialect == "gemini"
        else "200, `content_policy_violation` (OpenAI)"
    )
    with pytest.raises(ProviderError) as raised:
        await remote.open().draw(edit(1), deadline=soon())
    assert raised.value.code == "content_policy_violation"


@pytest.mark.parametrize(
    ("sizes", "given"),
    [
        ([], []),
        ([1], [1]),
        ([99], [7]),
        ([99, 99], [7, 7]),
        ([99, 99, 99], [6, 7, 7]),
        ([1, 99, 2, 99], [1, 7, 2, 7]),
        ([99, 1, 4, 99, 99], [5, 1, 4, 5, 5]),
    ],
)
def test_images_that_are_too_large_together_share_evenly_what_small_ones_leave(
    sizes: list[int], given: list[int]
) -> None:
    assert list(map(min, sizes, shares_of(CallLimits(7, 20), sizes))) == given


async def test_gemini_gets_images_below_its_limits_made_smaller_once_for_all_calls(
    gemini: GeminiProvider, google: GeminiStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = list[Size]()

    def bring(taken: TakenIn, limits: InputLimits) -> TakenIn:
        brought.append(taken.size)
        return bring_below(taken, limits)

    monkeypatch.setattr(inputs, "bring_below", bring)
    small, *large = noise(64, 64), *[noise(1300, 1300, seed=seed) for seed in "abc"]
    request = replace(edit(0), images=[*large, small])
    google.faults.append(BY_NAME["503"].gemini)
    await asyncio.gather(*[gemini.draw(replace(request, place=place), deadline=soon()) for place in range(2)])
    first, *others = google.seen
    assert [each.body for each in others] == [first.body] * 2
    assert brought == [each.size for each in large]
    before, now = await contents(request), sent(first)
    assert all(len(image[1]) < len(whole[1]) for image, whole in zip(now[:3], before[:3], strict=True))
    assert now[3] == before[3]


async def test_with_a_mask_the_first_image_is_a_png_and_the_others_stay(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    png, jpeg = edit(2).images
    request = replace(edit(0), images=[jpeg, jpeg, png], mask=mask_of(jpeg.size))
    await openai_with().draw(request, deadline=soon())
    first, *others = sent(endpoint.seen[-1])
    assert first[0] == "image/png"
    assert others == (await contents(request))[1:]


async def test_a_mask_goes_with_an_image_that_is_made_smaller(pool: FairPool, open_upstream: OpenUpstream) -> None:
    fitting = InputFitting(CallLimits(image_bytes_max=200_000, bytes_max=10**9), pool, open_upstream().keep)
    request = replace(edit(0), images=[noise(500, 300)], mask=mask_of(Size(500, 300)))
    fitted = await fitting.fitted(request)
    [image], mask = fitted.images, fitted.mask
    assert mask is not None
    assert image.blob.size <= 200_000
    assert image.size == mask.size < (500, 300)
    with pytest.raises(ProviderFailed) as raised:
        await InputFitting(CallLimits(10, 10), pool, open_upstream().keep).fitted(request)
    assert raised.value.failure == "request"
    assert raised.value.sentence == "The image cannot be made small enough for the model"


def test_the_reader_of_forms_keeps_any_bytes() -> None:
    content = bytes(range(256)) * 3 + b"\r\n\r\n--b\n--b--\r"
    body = b'--b-c\r\nContent-Disposition: form-data; name="image"; filename="1.png"\r\nContent-Type: image/png\r\n\r\n'
    seen = Seen("POST", "/", {"content-type": "multipart/form-data; boundary=b-c"}, body + content + b"\r\n--b-c--\r\n")
    assert read_form(seen) == ({}, [File("image", "1.png", "image/png", content)])
