"""`streamGenerateContent` is `generateContent` in one chunk, whose generation goes on without its client."""

import asyncio
import json
from dataclasses import replace

import asyncpg
import pytest
from tests.conftest import Start
from tests.features.gemini.asked import BANANA, MODEL, ask, google_key, image_in
from tests.features.generate.painted import painted
from tests.features.usage.recorded import total
from tests.harness import looks
from tests.problems import check_problem
from tests.raw_http import connected, post_of
from tests.standins import gemini

EVENTS = "streamGenerateContent?alt=sse"


async def test_with_one_idempotency_key_all_forms_are_the_same_image_counted_once(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        answers = [
            await ask(there.client, there.key, method=method, version=version, once="once")
            for method, version in (
                (EVENTS, "v1beta"),
                ("streamGenerateContent", "v1"),
                ("generateContent", "v1"),
                ("generateContent", "v1beta"),
            )
        ]
        event, array, whole, again = answers
        prefix, data, end = event.text.partition("{")
        assert (prefix, end[-2:]) == ("data: ", "\n\n")
        chunks = [json.loads(data + end), *array.json(), whole.json(), again.json()]
        assert len({image_in(each) for each in chunks}) == len({each["responseId"] for each in chunks}) == 1
        [media_type, *types] = [each.headers["content-type"].partition(";")[0] for each in answers]
        assert (media_type, set(types)) == ("text/event-stream", {"application/json"})
        assert {each.headers["x-model"] for each in answers} == {chunks[0]["modelVersion"]} == {"nano-banana"}
        assert [each.headers.get("idempotent-replayed") for each in answers] == [None, "true", "true", "true"]
        listed = await there.client.get(f"/v1/generations/{chunks[0]['responseId']}", headers=google_key(there.key))
        assert listed.json()["prompt"] == "A cute banana"
        other = await ask(there.client, there.key, model="imagen-4", once="once")
        check_problem(other, 422, "idempotency_key_reused")
        assert len(there.provider.seen) == await total(database, there.key) == 1


async def test_a_silent_stream_gets_empty_lines_and_a_late_error_is_a_chunk(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.features.watched.KEEP_ALIVE_SECONDS", 0.01)
    async with painted(start) as there:
        for method in (EVENTS, "streamGenerateContent"):
            for fault in (gemini.html(), gemini.blocked_prompt("SAFETY")):
                gate = asyncio.Event()
                there.provider.faults.extend([replace(fault, gate=gate)])
                headers, path = google_key(there.key), f"/v1beta/models/{MODEL}:{method}"
                async with there.client.stream("POST", path, json=BANANA, headers=headers) as answer:
                    text = ""
                    async for piece in answer.aiter_text():
                        text += piece
                        if len(text) > 5:
                            gate.set()
                assert answer.status_code == 200
                chunk = text.lstrip("\n")
                assert len(chunk) < len(text)
                assert chunk.startswith("data: {" if method is EVENTS else "[{"), chunk
                told = json.loads(chunk.removeprefix("data: "))
                [told] = [told] if method is EVENTS else told
                assert set(told) == ({"error"} if fault == gemini.html() else {"promptFeedback", "usageMetadata"})


async def test_the_generation_of_a_client_that_left_is_delivered_and_counted(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        gate, headers = asyncio.Event(), [*google_key(there.key).items(), ("Idempotency-Key", "once")]
        there.provider.faults.append(gemini.slow(gate))
        async with connected(there.client) as (_, writer):
            writer.write(post_of(f"/v1beta/models/{MODEL}:{EVENTS}", json.dumps(BANANA).encode(), headers))
            await there.asked()
        in_use = await ask(there.client, there.key, once="once")
        assert (in_use.status_code, in_use.json()["error"]["status"]) == (409, "ABORTED")
        gate.set()
        for _ in looks():
            if (answer := await ask(there.client, there.key, once="once")).status_code == 200:
                break
            await asyncio.sleep(0.01)
        assert image_in(answer.json())
        assert len(there.provider.seen) == await total(database, there.key) == 1
