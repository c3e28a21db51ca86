"""The vendors' own clients work with the stand-ins, which shows that the stand-ins speak the real protocols."""

import asyncio
import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import openai
import pytest
from google import genai
from google.genai import errors, types
from openai.types import ImageEditStreamEvent, ImageGenStreamEvent
from PIL import Image
from tests.providers.remote import KEY
from tests.standins.gemini import MODEL, GeminiStandIn, blocked_prompt, candidate, drawn, image_bytes, throttled
from tests.standins.openai import MODEL as OPENAI_MODEL
from tests.standins.openai import OpenAIStandIn
from tests.standins.openai import failed as openai_failed


def draw(url: str, *, key: str = KEY, version: str | None = None, model: str = MODEL) -> types.GenerateContentResponse:
    """Draws an image as Google's documentation does."""
    image = types.ImageConfig(aspect_ratio="16:9", image_size="1K")
    with genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, api_version=version)) as client:
        return client.models.generate_content(
            model=model,
            contents="A cute banana",
            config=types.GenerateContentConfig(response_modalities=["IMAGE"], image_config=image),
        )


@pytest.mark.parametrize("version", ["v1", "v1beta", None])
async def test_googles_client_gets_an_image(google_url: str, version: str | None) -> None:
    answer = await asyncio.to_thread(draw, google_url, version=version)
    [part, text] = answer.parts or []
    assert part.inline_data is not None
    assert part.inline_data.data == image_bytes(1376, 768)
    assert text.text == "Here it is"


async def test_googles_client_finds_the_model_and_no_other(google_url: str) -> None:
    with genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=google_url)) as client:
        found = await asyncio.to_thread(client.models.get, model=MODEL)
        with pytest.raises(errors.ClientError) as unknown:
            await asyncio.to_thread(client.models.get, model="gemini-0")
    assert found.name == f"models/{MODEL}"
    assert unknown.value.code == 404


async def test_googles_client_distinguishes_thoughts_from_the_image(google: GeminiStandIn, google_url: str) -> None:
    google.faults.append(drawn(image_bytes(64, 64), thought=image_bytes(32, 32)))
    answer = await asyncio.to_thread(draw, google_url)
    assert [bool(part.thought) for part in answer.parts or []] == [True, True, False, False]
    images = [part.inline_data.data for part in answer.parts or [] if part.inline_data and not part.thought]
    assert images == [image_bytes(64, 64)]


async def test_googles_client_sends_images_and_one_that_is_none_is_refused(google_url: str) -> None:
    def edit(*images: bytes) -> types.GenerateContentResponse:
        parts = [types.Part.from_bytes(data=each, mime_type="image/jpeg") for each in images]
        contents: list[Any] = ["A cute banana", *parts]
        with genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=google_url)) as client:
            return client.models.generate_content(model=MODEL, contents=contents)

    jpeg = image_bytes(64, 64, "JPEG")
    assert (await asyncio.to_thread(edit, jpeg, jpeg)).parts
    for wrong in (image_bytes(64, 64), jpeg[:-20]):
        with pytest.raises(errors.ClientError):
            await asyncio.to_thread(edit, wrong)


async def test_googles_client_sees_text_instead_of_an_image(google: GeminiStandIn, google_url: str) -> None:
    google.faults.append(candidate("STOP", {"text": "No"}))
    answer = await asyncio.to_thread(draw, google_url)
    assert answer.text == "No"
    assert [part.inline_data for part in answer.parts or []] == [None]


async def test_googles_client_sees_each_form_of_a_refusal(google: GeminiStandIn, google_url: str) -> None:
    google.faults.extend([blocked_prompt("PROHIBITED_CONTENT"), candidate("SAFETY"), candidate("IMAGE_SAFETY")])
    blocked, *finished = [await asyncio.to_thread(draw, google_url) for _ in range(3)]
    assert blocked.prompt_feedback is not None
    assert blocked.prompt_feedback.block_reason is types.BlockedReason.PROHIBITED_CONTENT
    reasons = [each.finish_reason for answer in finished for each in answer.candidates or []]
    assert reasons == [types.FinishReason.SAFETY, types.FinishReason.IMAGE_SAFETY]


async def test_googles_client_raises_each_error(google: GeminiStandIn, google_url: str) -> None:
    google.faults.append(throttled(retry_delay="17s"))
    for code, status, wrong in (
        (429, "RESOURCE_EXHAUSTED", {}),
        (400, "INVALID_ARGUMENT", {"key": "another"}),
        (404, "NOT_FOUND", {"model": "gemini-0"}),
    ):
        with pytest.raises(errors.ClientError) as raised:
            await asyncio.to_thread(draw, google_url, **wrong)
        assert (raised.value.code, raised.value.status) == (code, status)


@pytest.mark.parametrize(("quota_id", "retry_delay"), [("GenerateRequestsPerDay", None), ("PerMinute", "17s")])
async def test_googles_client_sees_the_retry_delay_and_the_quota(
    google: GeminiStandIn, google_url: str, quota_id: str, retry_delay: str | None
) -> None:
    google.faults.append(throttled(retry_delay=retry_delay, quota_id=quota_id))
    with pytest.raises(errors.ClientError) as raised:
        await asyncio.to_thread(draw, google_url)
    details = {each["@type"].rpartition(".")[2]: each for each in raised.value.details["error"]["details"]}
    assert details["QuotaFailure"]["violations"][0]["quotaId"] == quota_id
    assert details.get("RetryInfo", {}).get("retryDelay") == retry_delay


@pytest.fixture
def openai_client(endpoint_url: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=f"{endpoint_url}/v1", max_retries=0)


async def test_openais_client_gets_an_image(openai_client: openai.OpenAI) -> None:
    with openai_client as client:
        answer = await asyncio.to_thread(
            client.images.generate, prompt="A cute banana", model=OPENAI_MODEL, size="1536x1024"
        )
    [image] = answer.data or []
    assert image.b64_json is not None


async def test_openais_client_reads_the_stream_of_an_image(openai_client: openai.OpenAI) -> None:
    def read() -> list[ImageGenStreamEvent]:
        stream = openai_client.images.generate(
            prompt="A cute banana", model=OPENAI_MODEL, stream=True, partial_images=2, output_format="webp"
        )
        return list(stream)

    with openai_client:
        *sketches, last = await asyncio.to_thread(read)
    assert [each.partial_image_index for each in sketches if each.type == "image_generation.partial_image"] == [0, 1]
    assert last.type == "image_generation.completed"
    assert base64.b64decode(last.b64_json) == image_bytes(1024, 1024, "WEBP")


async def test_openais_client_edits_and_reads_the_stream_of_an_edit(openai_client: openai.OpenAI) -> None:
    png, mask = (name_and_bytes("png", mode) for mode in ("RGB", "RGBA"))
    several = [png, name_and_bytes("jpeg"), name_and_bytes("webp")]

    def edit() -> list[ImageEditStreamEvent]:
        cases: list[dict[str, Any]] = [{"image": png}, {"image": png, "mask": mask}, {"image": several, "mask": mask}]
        for each in cases:
            answer = openai_client.images.edit(prompt="A cute banana", model=OPENAI_MODEL, **each)
            assert [bool(image.b64_json) for image in answer.data or []] == [True]
        return list(
            openai_client.images.edit(
                image=several, prompt="A cute banana", model=OPENAI_MODEL, stream=True, partial_images=1
            )
        )

    with openai_client:
        sketch, last = await asyncio.to_thread(edit)
    assert (sketch.type, last.type) == ("image_edit.partial_image", "image_edit.completed")


async def test_openais_client_is_refused_images_that_are_not_what_they_are_called(openai_client: openai.OpenAI) -> None:
    png, mask, jpeg = name_and_bytes("png"), name_and_bytes("png", "RGBA"), name_and_bytes("jpeg")
    wrong: list[dict[str, Any]] = [
        {"image": ("image.jpg", png[1])},
        {"image": ("image.png", png[1][:-20])},
        {"image": [png] * 17},
        {"image": png, "mask": png},
        {"image": png, "mask": jpeg},
        {"image": jpeg, "mask": name_and_bytes("png", "RGBA", width=65)},
        {"image": mask, "mask": ("mask.png", b"")},
    ]
    with openai_client as client:
        edit: Callable[..., object] = client.images.edit
        for each in wrong:
            with pytest.raises(openai.BadRequestError) as raised:
                await asyncio.to_thread(edit, prompt="x", model=OPENAI_MODEL, **each)
            assert raised.value.code == "invalid_image_file"


def name_and_bytes(kind: str, mode: str = "RGB", *, width: int = 64) -> tuple[str, bytes]:
    """A file as the client takes it."""
    encoded = BytesIO()
    Image.new(mode, (width, 64)).save(encoded, kind)
    return f"image.{kind}", encoded.getvalue()


async def test_azures_client_gets_an_image(endpoint_url: str, endpoint: OpenAIStandIn) -> None:
    with openai.AzureOpenAI(
        api_key=KEY, azure_endpoint=endpoint_url, api_version="2026-05-01", azure_deployment=OPENAI_MODEL, max_retries=0
    ) as client:
        answer = await asyncio.to_thread(client.images.generate, prompt="A cute banana", model=OPENAI_MODEL)
        with pytest.raises(openai.AuthenticationError):
            await asyncio.to_thread(client.with_options(api_key="another").images.generate, prompt="A cute banana")
    assert [bool(image.b64_json) for image in answer.data or []] == [True]
    assert {seen.headers.get("authorization") for seen in endpoint.seen} == {None}


async def test_openais_client_gets_the_url_of_an_image(openai_client: openai.OpenAI, endpoint_url: str) -> None:
    with openai_client as client:
        answer = await asyncio.to_thread(
            client.images.generate, prompt="A cute banana", model=OPENAI_MODEL, response_format="url"
        )
    assert [image.url for image in answer.data or []] == [f"{endpoint_url}/files/1024x1024.png"]


async def test_openais_client_finds_the_model_and_the_list_of_all(openai_client: openai.OpenAI) -> None:
    with openai_client as client:
        found = await asyncio.to_thread(client.models.retrieve, OPENAI_MODEL)
        listed = await asyncio.to_thread(client.models.list)
        with pytest.raises(openai.NotFoundError):
            await asyncio.to_thread(client.models.retrieve, "dall-e-9")
    assert found.id == OPENAI_MODEL
    assert OPENAI_MODEL in {each.id for each in listed.data}


async def test_openais_client_raises_each_error(openai_client: openai.OpenAI, endpoint: OpenAIStandIn) -> None:
    endpoint.faults.append(openai_failed(400, "content_policy_violation"))
    with openai_client as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await asyncio.to_thread(client.images.generate, prompt="x", model=OPENAI_MODEL)
        assert refused.value.code == "content_policy_violation"
        with pytest.raises(openai.NotFoundError):
            await asyncio.to_thread(client.images.generate, prompt="x", model="dall-e-9")
        with pytest.raises(openai.AuthenticationError):
            await asyncio.to_thread(client.with_options(api_key="another").images.generate, prompt="x")
