"""Gemini: the requests that are sent to it, and the results of its responses."""

import asyncio
import json

import pytest
from app.providers import ContentRefused, DrawRequest, NoImageReturned, Size
from app.providers.gemini import GEMINI_SIZES, Frame, GeminiProvider, parse_frames
from app.providers.remote import checked_key
from pydantic import SecretStr
from tests.providers.remote import KEY, RED_PNG, banana, soon
from tests.standins.gemini import GeminiStandIn, blocked_prompt, candidate, drawn, image_bytes
from tests.standins.wire import Reply, json_reply


async def test_the_key_is_sent_in_its_header_and_nowhere_else(gemini: GeminiProvider, google: GeminiStandIn) -> None:
    await gemini.draw(banana(), deadline=soon())
    [seen] = google.seen
    assert seen.headers.pop("x-goog-api-key") == KEY
    assert KEY not in repr(seen)


async def test_a_request_holds_prompt_and_size_and_nothing_else(gemini: GeminiProvider, google: GeminiStandIn) -> None:
    await gemini.draw(DrawRequest("A cute banana", Size(1920, 1080)), deadline=soon())
    [seen] = google.seen
    assert (seen.method, seen.target) == ("POST", "/v1beta/models/gemini-2.5-flash-image:generateContent")
    assert seen.json() == {
        "contents": [{"role": "user", "parts": [{"text": "A cute banana"}]}],
        "generationConfig": {
            "responseModalities": ["IMAGE"],
            "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
        },
    }


@pytest.mark.parametrize("prompt", ["猫 🍌 \u202e\x7f", '"}]}],"x":', "%s{{7*7}}${jndi:ldap://x}", "x" * 4000])
async def test_any_prompt_is_sent_unchanged(gemini: GeminiProvider, google: GeminiStandIn, prompt: str) -> None:
    await gemini.draw(DrawRequest(prompt, Size(256, 256)), deadline=soon())
    assert google.seen[0].json()["contents"][0]["parts"] == [{"text": prompt}]


async def test_the_result_is_the_last_image_that_is_not_a_thought(
    gemini: GeminiProvider, google: GeminiStandIn
) -> None:
    google.faults.append(drawn(RED_PNG, thought=image_bytes(1024, 1024)))
    assert (await gemini.draw(banana(), deadline=soon())).content == RED_PNG


async def test_of_several_images_the_last_is_the_result(gemini: GeminiProvider, google: GeminiStandIn) -> None:
    parts = [json.loads(drawn(image).content)["candidates"][0]["content"]["parts"][0] for image in (b"draft", RED_PNG)]
    google.faults.append(candidate("STOP", *parts))
    assert (await gemini.draw(banana(), deadline=soon())).content == RED_PNG


async def test_the_media_type_comes_from_the_bytes_and_not_from_the_providers_claim(
    gemini: GeminiProvider, google: GeminiStandIn
) -> None:
    google.faults.append(drawn(image_bytes(1024, 1024, "JPEG"), media_type="text/html"))
    assert (await gemini.draw(banana(), deadline=soon())).media_type == "image/jpeg"


@pytest.mark.parametrize(
    "refusal",
    [
        *map(blocked_prompt, ["SAFETY", "OTHER", "PROHIBITED_CONTENT", "BLOCKLIST", "IMAGE_SAFETY", "NEW_REASON"]),
        *map(candidate, ["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "IMAGE_RECITATION"]),
        *(candidate(reason, {"text": "No."}) for reason in ("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT")),
    ],
)
async def test_a_prompt_that_the_provider_refuses_is_reported_as_refused_and_not_retried(
    gemini: GeminiProvider, google: GeminiStandIn, refusal: Reply
) -> None:
    google.faults.append(refusal)
    with pytest.raises(ContentRefused):
        await gemini.draw(banana(), deadline=soon())
    assert len(google.seen) == 1


@pytest.mark.parametrize(
    "nothing",
    [
        candidate("STOP", {"text": "I would rather write a poem"}),
        candidate("NO_IMAGE"),
        json_reply({}),
        json_reply({"candidates": None, "promptFeedback": {"blockReason": "BLOCK_REASON_UNSPECIFIED"}}),
        candidate("MAX_TOKENS"),
    ],
)
async def test_a_response_without_image_and_reason_is_retried_once_and_then_reported(
    gemini: GeminiProvider, google: GeminiStandIn, nothing: Reply
) -> None:
    google.faults.extend([nothing] * 5)
    with pytest.raises(NoImageReturned):
        await gemini.draw(banana(), deadline=soon())
    assert len(google.seen) == 2


async def test_the_second_attempt_can_succeed(gemini: GeminiProvider, google: GeminiStandIn) -> None:
    google.faults.append(candidate("NO_IMAGE"))
    assert (await gemini.draw(banana(), deadline=soon())).media_type == "image/png"


@pytest.mark.parametrize("key", ["with space", "new\nline", "ümlaut", "tab\t"])
def test_a_key_that_no_header_can_hold_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as raised:
        checked_key(SecretStr(key))
    assert key not in str(raised.value)


def test_the_default_sizes_have_ratios_that_gemini_draws() -> None:
    frames = parse_frames(GEMINI_SIZES)
    assert frames[Size(1024, 1024)] == Frame("1:1", "1K")
    ratios = {"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"}
    assert {frame.aspect_ratio for frame in frames.values()} == ratios


@pytest.mark.parametrize(
    "text",
    ["", "1024x1024", "1024x1024=1:1", "1024x1024=1:1/3K", "1792x1024=16:9/2K", "1024x1023=1:1/1K", "0x0=1:1/1K", ",",
     "1024X1024=1:1/1K", "٣٢x٣٢=1:1/1K", "99999x99999=1:1/4K"],
)  # fmt: skip
def test_an_unreadable_or_distorting_table_of_sizes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="entry 1"):
        parse_frames(text)


def test_a_size_outside_the_table_is_refused_with_the_whole_table(gemini: GeminiProvider) -> None:
    refusal = gemini.refusal(Size(1792, 1024)) or ""
    assert all(str(size) in refusal for size in parse_frames(GEMINI_SIZES))
    assert gemini.refusal(Size(1024, 1024)) is None


async def test_many_concurrent_calls_all_succeed(gemini: GeminiProvider, google: GeminiStandIn) -> None:
    small = image_bytes(256, 256)
    google.faults.extend([drawn(small)] * 250)
    images = await asyncio.gather(*(gemini.draw(DrawRequest("x", Size(256, 256)), deadline=soon()) for _ in range(250)))
    assert {image.content for image in images} == {small}
