"""Streams over HTTP and by OpenAI's SDK: sketches while an image is drawn, images in base64, errors, replays."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any, NamedTuple, cast

import asyncpg
import httpx2
import openai
import pytest
from app.core.byte_budget import ByteBudget
from app.features.openai.streaming import _events
from app.features.watched import Watched, _Sketches
from app.generations.collaborators import Generations
from app.generations.spec import Delivered, GenerationSpec
from tests.conftest import Start
from tests.features.generate.painted import painted, painted_by_openai
from tests.features.openai.test_sdk import sdk_of
from tests.features.usage.recorded import total
from tests.harness import BEYOND_PATIENCE_SECONDS, JSON, Account, Key
from tests.problems import check_problem
from tests.standins import gemini
from tests.standins.gemini import image_bytes
from tests.standins.openai import completed, sketch, streamed

ROUTE = "/v1/images/generations"
ONCE = {"Idempotency-Key": "once"}
SMALL = {"prompt": "A cute banana", "size": "64x64"}
STREAMING = {"openai_capabilities": "stream"}
EACH_EVENT = {"type", "b64_json", "created_at", "size", "quality", "background", "output_format"}
NO_TOKENS = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)
ERROR = b'event: error\ndata: {"type": "error", "error": {"message": "a", "code": "%b"}}\n\n'


class Event(NamedTuple):
    kind: str
    data: JSON

    @property
    def image(self) -> bytes:
        return base64.b64decode(self.data["b64_json"], validate=True)


def events_in(answer: httpx2.Response) -> list[Event]:
    """The events of a whole stream, whose names and data agree, without its comments."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    *blocks, rest = answer.text.split("\n\n")
    assert rest == ""
    events = []
    for name, data in (block.split("\n") for block in blocks if not block.startswith(":")):
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(Event(event["type"].rpartition(".")[2], event))
    return events


async def ask(
    client: httpx2.AsyncClient, key: Key, headers: Mapping[str, str] | None = None, **body: object
) -> httpx2.Response:
    return await client.post(ROUTE, json={**SMALL, "stream": True, **body}, headers={**key.headers, **(headers or {})})


async def listed(client: httpx2.AsyncClient, key: Key) -> list[bytes]:
    """The images of the key's account, as they are behind their URLs, the first first."""
    answer = await client.get("/v1/generations?limit=100", headers=key.headers)
    paths = [httpx2.URL(each["url"]).path for each in sorted(answer.json(), key=lambda one: str(one["id"]))]
    return [(await client.get(path)).content for path in paths]


@pytest.mark.parametrize("environment", ["live", "test"])
@pytest.mark.parametrize(
    "more", [{"output_format": "webp", "response_format": "url", "background": "opaque"}, {"n": 2, "partial_images": 3}]
)
async def test_a_stream_of_the_stub_has_an_event_for_each_image_which_is_the_one_behind_its_url(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, environment: str, more: JSON
) -> None:
    key = await account.create_key(environment=environment)
    answer = await ask(client, key, model="dall-e-3", **more)
    events = events_in(answer)
    assert (answer.headers["x-model"], answer.headers["cache-control"]) == ("nano-banana", "no-store")
    assert [event.kind for event in events] == ["completed"] * more.get("n", 1)
    for event in events:
        assert set(event.data) == EACH_EVENT | {"usage"}
        assert event.data["usage"] == {**NO_TOKENS, "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}
        assert isinstance(event.data["created_at"], int)
        told = tuple(event.data[name] for name in ("size", "quality", "background", "output_format"))
        assert told == ("64x64", "auto", more.get("background", "auto"), more.get("output_format", "png"))
    assert sorted(event.image for event in events) == sorted(await listed(client, key))
    assert await total(database, key) == len(events)


@pytest.mark.parametrize("partials", [0, 1, 3])
async def test_the_sdk_gets_sketches_while_the_image_is_drawn_and_the_image_once_it_is_kept(
    start: Start, database: asyncpg.Connection, partials: int
) -> None:
    async with painted_by_openai(start, **STREAMING) as there, sdk_of(there.client, there.key) as sdk:
        image, gate = image_bytes(1024, 1024), asyncio.Event()
        sketches = [image_bytes(64 + index, 64) for index in range(partials)]
        if partials:
            drawn = [sketch(*each) for each in enumerate(sketches)]
            there.provider.faults.append(streamed(*drawn, later=(gate, completed(image))))
        stream = await sdk.images.generate(
            prompt="A cute banana", size="1024x1024", stream=True, partial_images=partials
        )
        seen = []
        async for event in stream:
            if event.type == "image_generation.partial_image":
                seen.append((event.partial_image_index, base64.b64decode(event.b64_json)))
                assert (event.size, event.output_format) == ("1024x1024", "png")
                if event.partial_image_index == partials - 1:
                    assert await total(database, there.key) == 0
                    gate.set()
            else:
                assert event.usage.total_tokens == 0
                last = base64.b64decode(event.b64_json)
        assert last == image == (await listed(there.client, there.key))[0]
        assert seen == [each for each in enumerate(sketches) if each in seen], "in order, though some may be left out"
        assert len(seen) >= min(1, partials)
        [call] = there.provider.seen
        asked = {name: call.json()[name] for name in ("stream", "partial_images") if name in call.json()}
        assert asked == ({"stream": True, "partial_images": partials} if partials else {})
        assert await total(database, there.key) == 1


async def test_a_provider_without_sketches_draws_as_ever_and_several_images_are_asked_for_without_sketches(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        [event] = events_in(await ask(there.client, there.key, size="1024x1024", partial_images=3))
        assert [event.image] == await listed(there.client, there.key)
    async with painted_by_openai(start, **STREAMING) as there:
        events = events_in(await ask(there.client, there.key, size="1024x1024", partial_images=3, n=2))
        assert [event.kind for event in events] == ["completed"] * 2
        assert not any("stream" in call.json() for call in there.provider.seen)
        assert await total(database, there.key) == 2


async def test_of_several_images_those_that_failed_are_errors_at_the_end(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key(environment="test")
    *images, first, second = events_in(await ask(client, key, prompt="test:fail:2", n=4))
    assert sorted(each.image for each in images) == sorted(await listed(client, key))
    for index, event in enumerate((first, second)):
        assert event.data["error"]["message"] == f"The image with the index {index} could not be made"
        assert (event.kind, event.data["error"]["code"]) == ("error", "provider_failed")
    async with sdk_of(client, key) as sdk:
        stream = await sdk.images.generate(prompt="test:fail:2", n=4, size="512x512", stream=True)
        assert [(await anext(stream)).type for _ in range(2)] == ["image_generation.completed"] * 2
        with pytest.raises(openai.APIError) as raised:
            await anext(stream)
    assert raised.value.code == "provider_failed"
    assert await total(database, key) == 4


REFUSED: list[tuple[JSON, int, str]] = [
    ({"model": "gpt-4o"}, 404, "model_not_found"),
    ({"size": "1x1"}, 422, "validation_error"),
    ({"partial_images": 4}, 422, "validation_error"),
    ({"seed": 1}, 400, "unsupported_parameter"),
    ({"prompt": "test:refuse"}, 400, "content_policy_violation"),
    ({"prompt": "test:fail"}, 502, "provider_failed"),
    ({"prompt": "test:timeout", "n": 2}, 504, "provider_timeout"),
    ({"prompt": "test:unavailable", "response_format": "b64_json"}, 503, "provider_unavailable"),
]


async def test_an_error_before_the_first_event_is_a_status_as_without_a_stream(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key(environment="test")
    check_problem(await ask(client, Key("", "x")), 401, "invalid_api_key")
    async with sdk_of(client, key) as sdk:
        for body, status, code in REFUSED:
            answer, plain = await ask(client, key, **body), await ask(client, key, **body, stream=False)
            check_problem(answer, status, code)
            assert answer.json() == plain.json()
            assert answer.headers.get("x-should-retry") == plain.headers.get("x-should-retry")
            with pytest.raises(openai.APIStatusError) as raised:
                await sdk.images.generate(prompt="a", stream=True, extra_body={**SMALL, **body})
            assert (raised.value.status_code, raised.value.code) == (status, code)
    assert await total(database, key) == 0


@pytest.mark.parametrize(
    ("sent", "code", "is_logged"),
    [(b"server_error", "provider_failed", True), (b"moderation_blocked", "content_policy_violation", False)],
)
async def test_an_error_after_the_first_event_is_an_event_that_the_sdk_raises(
    start: Start, database: asyncpg.Connection, log: StringIO, *, sent: bytes, code: str, is_logged: bool
) -> None:
    async with painted_by_openai(start, **STREAMING) as there, sdk_of(there.client, there.key) as sdk:
        gate = asyncio.Event()
        there.provider.faults.append(streamed(sketch(0, image_bytes(64, 64)), later=(gate, ERROR % sent)))
        stream = await sdk.images.generate(prompt="A cute banana", stream=True, partial_images=1)
        assert (await anext(stream)).type == "image_generation.partial_image"
        gate.set()
        with pytest.raises(openai.APIError) as raised:
            await anext(stream)
        assert (raised.value.code, raised.value.message.startswith("The provider")) == (code, True)
        assert await total(database, there.key) == 0
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    found = [line for line in lines if line["event"] == "stream_failed"]
    assert [(line["code"], line["exception"]["type"]) for line in found] == (
        [(code, "app.providers.ProviderFailed")] if is_logged else []
    )


async def test_a_silent_stream_begins_with_a_comment_and_an_error_after_it_is_an_event(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, seconds = _Sketches.wait_beside, "app.features.watched.KEEP_ALIVE_SECONDS"

    async def wait_briefly_once(sketches: _Sketches, task: asyncio.Task[Any]) -> None:
        await wait(sketches, task)
        monkeypatch.setattr(seconds, BEYOND_PATIENCE_SECONDS)

    monkeypatch.setattr(_Sketches, "wait_beside", wait_briefly_once)
    async with painted(start) as there:
        ends = {
            "image_generation.completed": gemini.drawn(image_bytes(1024, 1024)),
            "content_policy_violation": gemini.blocked_prompt("SAFETY"),
        }
        for end, reply in ends.items():
            monkeypatch.setattr(seconds, 0.01)
            gate = asyncio.Event()
            there.provider.faults.append(replace(reply, gate=gate))
            body = {"prompt": "A cute banana", "stream": True}
            async with there.client.stream("POST", ROUTE, json=body, headers=there.key.headers) as answer:
                chunks = answer.aiter_text()
                assert await anext(chunks) == ": keep-alive\n\n"
                assert (answer.status_code, answer.headers["x-model"]) == (200, "nano-banana")
                gate.set()
                rest = "".join([chunk async for chunk in chunks])
            assert end in rest.rpartition("data: ")[2]


def test_of_sketches_that_are_not_read_the_latest_is_kept() -> None:
    sketches = _Sketches()
    for index in range(3):
        sketches.put(index, b"%d" % index)
    assert [sketches.take() for _ in range(2)] == [(2, b"2"), None]


async def test_an_image_in_memory_is_forgotten_when_it_is_written() -> None:
    contents, now = [os.urandom(63) for _ in range(2)], datetime.now(UTC)
    references = sys.getrefcount(contents[0])

    async def generate() -> Delivered:
        return Delivered(
            ["a", "b"], [], "png", "", "", "64x64", "auto", 0, now, is_replay=False, contents=tuple(contents)
        )

    generating, spec = asyncio.create_task(generate()), GenerationSpec("", "64x64")
    await asyncio.wait({generating})
    with ByteBudget(16 * 1024 * 1024).share() as memory:
        watched = Watched(cast(Generations, None), generating, _Sketches())
        events = _events(watched, spec=spec, memory=memory, kind="image_generation")
        del generating
        written = [await anext(events) for _ in range(4)]  # the first image, and the beginning of the second
        left = sys.getrefcount(contents[0])  # an assertion would hold one itself
        assert left == references
        assert base64.b64encode(contents[0]) == written[1]


@pytest.mark.parametrize("streams", [(False, True), (True, False), (True, True)], ids=str)
@pytest.mark.parametrize("prompt", ["A cute banana", "test:fail:1"])
async def test_a_stream_and_an_answer_of_one_idempotency_key_are_the_same_images_which_count_once(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection, streams: tuple[bool, bool], prompt: str
) -> None:
    key = await account.create_key(environment="test")
    told = list[Any]()
    for stream in streams:
        answer = await ask(client, key, ONCE, prompt=prompt, n=2, stream=stream)
        assert answer.headers.get("idempotent-replayed") == ("true" if told else None)
        if stream:
            events = events_in(answer)
            images = [event.image for event in events if event.kind == "completed"]
            errors = [event.data["error"]["code"] for event in events if event.kind == "error"]
        else:
            paths = [httpx2.URL(each["url"]).path for each in answer.json()["data"]]
            images = [(await client.get(path)).content for path in paths]
            errors = [each["code"] for each in answer.json().get("errors", [])]
        told.append((images, errors))
    assert told[0] == told[1]
    assert await total(database, key) == len(told[0][0]) == 2 - len(told[0][1])
    check_problem(await ask(client, key, ONCE, prompt="Another banana"), 422, "idempotency_key_reused")
