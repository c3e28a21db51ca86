"""`predict`: several images of a prompt, each with an end of its own."""

import asyncpg
from app.providers import ContentRefused
from tests.conftest import Start
from tests.features.gemini.asked import ask, opened
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import JSON, sign_up
from tests.standins import gemini

IMAGEN = "imagen-4.0-generate-001"
BANANA: JSON = {"instances": [{"prompt": "A cute banana"}]}
GOOD = gemini.drawn(gemini.image_bytes(1024, 1024))


def with_parameters(**parameters: object) -> JSON:
    return {**BANANA, "parameters": parameters}


async def test_each_form_of_a_prediction_is_as_many_images_of_the_format_and_the_size_that_were_asked_for(
    start: Start, database: asyncpg.Connection
) -> None:
    client = await start(generate_limit_per_key="20/day")
    key = await (await sign_up(client)).create_key(environment="test")
    wide = {"aspectRatio": "16:9", "sampleImageSize": "1K", "outputOptions": {"mimeType": "image/jpeg"}}
    webp = {"mime_type": "image/webp", "compression_quality": 100}
    forms = [
        (BANANA, 1, ("PNG", (1024, 1024))),
        ({"instances": {"prompt": "A cute banana"}, "parameters": None}, 1, ("PNG", (1024, 1024))),
        (with_parameters(sampleCount=2, personGeneration="ALLOW_ADULT", **wide), 2, ("JPEG", (1344, 768))),
        (
            with_parameters(sample_count=2, output_options=webp),
            2,
            ("WEBP", (1024, 1024)),
        ),
        (with_parameters(aspectRatio="9:16", sampleImageSize="2K", includeRaiReason=True), 1, ("PNG", (1170, 2048))),
    ]
    for body, count, image in forms:
        answer = await ask(client, key, body, method="predict", model=IMAGEN)
        assert answer.status_code == 200, answer.text
        predictions = answer.json()["predictions"]
        assert [opened(each["bytesBase64Encoded"]) for each in predictions] == [image] * count
        assert {each["mimeType"] for each in predictions} == {f"image/{image[0].lower()}"}
    counted = sum(count for _, count, _ in forms)
    assert answer.headers["x-ratelimit-remaining-requests"] == str(20 - counted)
    assert await total(database, key) == counted


async def test_images_that_fail_are_left_out_or_stand_in_their_place_with_the_reason(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, provider_calls_max_per_account=1) as there:
        replies = [GOOD, gemini.html(), GOOD]
        for names_failed in (False, True):
            there.provider.faults.extend(replies)
            body = with_parameters(sampleCount=3, includeRaiReason=names_failed)
            answers = [await ask(there.client, there.key, body, method="predict", once=str(names_failed)) for _ in "12"]
            assert answers[0].json() == answers[1].json()
            predictions = answers[0].json()["predictions"]
            reasons = [each.get("raiFilteredReason") for each in predictions]
            assert reasons == ([None, "It could not be made: provider_failed", None] if names_failed else [None] * 2)
            there.provider.faults.append(gemini.blocked_prompt("SAFETY"))
            refused = await ask(
                there.client, there.key, with_parameters(includeRaiReason=names_failed), method="predict"
            )
            assert refused.status_code == 200
            named = [{"raiFilteredReason": ContentRefused.detail}] if names_failed else []
            assert refused.json() == {"predictions": named}
        assert await total(database, there.key) == 4


async def test_more_images_than_the_limits_ever_let_through_name_the_parameter_that_asked_for_them(
    start: Start,
) -> None:
    client = await start(generate_limit_per_key="3/day")
    key = await (await sign_up(client)).create_key()
    answer = await ask(client, key, with_parameters(sampleCount=4), method="predict", model=IMAGEN)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith("parameters/sampleCount: The limits let 3 through at once")
