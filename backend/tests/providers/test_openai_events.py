"""Streams of an OpenAI-compatible endpoint: sketches as they arrive, then the image, in any legal form, in bounds."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from app.providers import DrawRequest, Image, ProviderError
from app.providers.event_stream import read_events
from app.providers.response_memory import ResponseMemory, Share
from tests.providers.failures import animated
from tests.providers.remote import RED_PNG, OpenAIWith, banana, soon
from tests.standins.gemini import image_bytes
from tests.standins.openai import OpenAIStandIn, completed, event, failed, in_place, sketch, streamed
from tests.standins.wire import Reply

SKETCHES = [image_bytes(64, 64), image_bytes(64, 64, "JPEG"), image_bytes(64, 64, "WEBP")]
STREAMING = frozenset({"stream"})

Sketches = list[tuple[int, bytes]]


def sketched(given: Sketches, *, partials: int = 3) -> DrawRequest:
    """A request whose sketches are added to `given`."""
    return replace(banana(), partials=partials, on_partial=lambda *each: given.append(each))


async def test_each_sketch_is_given_to_the_request_when_it_arrives_and_the_image_comes_last(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    given, all_given = Sketches(), asyncio.Event()

    def take(index: int, content: bytes) -> None:
        given.append((index, content))
        if len(given) == len(SKETCHES):
            all_given.set()

    sketches = [sketch(*each) for each in enumerate(SKETCHES)]
    endpoint.faults.append(streamed(*sketches, later=(all_given, completed(RED_PNG))))
    image = await openai_with(capabilities=STREAMING).draw(
        replace(banana(), partials=3, on_partial=take), deadline=soon()
    )
    assert (given, image.content) == (list(enumerate(SKETCHES)), RED_PNG)


@pytest.mark.parametrize(
    ("capabilities", "wishes", "sent"),
    [
        (STREAMING, {"partials": 2, "on_partial": lambda *_: None}, {"stream": True, "partial_images": 2}),
        (STREAMING, {"partials": 0, "on_partial": lambda *_: None}, {}),
        (STREAMING, {"partials": 2}, {}),
        (frozenset(), {"partials": 2, "on_partial": lambda *_: None}, {}),
    ],
)
async def test_a_stream_is_asked_for_only_where_there_is_somebody_to_give_sketches_to(
    openai_with: OpenAIWith,
    endpoint: OpenAIStandIn,
    capabilities: frozenset[str],
    wishes: Mapping[str, Any],
    sent: Mapping[str, object],
) -> None:
    await openai_with(capabilities=capabilities).draw(replace(banana(), **wishes), deadline=soon())
    body = endpoint.seen[0].json()
    assert {name: body[name] for name in ("stream", "partial_images") if name in body} == sent


def _data(stream: bytes) -> bytes:
    return stream.partition(b"\n")[2]


_STREAM = sketch(0, SKETCHES[0]) + completed(RED_PNG)
_INDENTED = json.dumps({"type": "image_generation.partial_image", "b64_json": ""}, indent=1).replace("\n", "\ndata: ")
FORMS: Mapping[str, bytes] = {
    "carriage returns and line feeds": _STREAM.replace(b"\n", b"\r\n"),
    "carriage returns": _STREAM.replace(b"\n", b"\r"),
    "no names beside the data": _data(sketch(0, SKETCHES[0])) + _data(completed(RED_PNG)),
    "no space after the colon": _STREAM.replace(b": image", b":image").replace(b"data: ", b"data:"),
    "comments, ids and unknown fields": b": keep-alive\n\n:\nid: 1\nretry: 5\nother: x\nother\n" + _STREAM,
    "several lines of data": _STREAM.replace(b', "output_format"', b'\ndata: , "output_format"'),
    "unknown events": b'event: x\ndata: {"type": "x.started"}\n\ndata: words\n\ndata: [1]\n\n' + _STREAM,
    "[DONE] before the image": sketch(0, SKETCHES[0]) + b"data: [DONE]\n\n" + completed(RED_PNG),
    "[DONE] after the image": _STREAM + b"data: [DONE]\n\n",
    "no empty line at the end": _STREAM.rstrip(),
    "the events of an edit": _STREAM.replace(b"image_generation", b"image_edit"),
    "a name in the head alone": _STREAM.replace(b'{"type"', b'{"kind"'),
}


@pytest.mark.parametrize("form", FORMS)
async def test_each_form_of_a_stream_is_read(openai_with: OpenAIWith, endpoint: OpenAIStandIn, form: str) -> None:
    given = Sketches()
    endpoint.faults.append(streamed(FORMS[form]))
    image = await openai_with(capabilities=STREAMING).draw(sketched(given), deadline=soon())
    assert (given, image.content) == ([(0, SKETCHES[0])], RED_PNG)


async def test_an_answer_that_is_no_stream_is_read_as_one_that_was_not_asked_for(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    given = Sketches()
    endpoint.faults.append(in_place(RED_PNG))
    assert (await openai_with(capabilities=STREAMING).draw(sketched(given), deadline=soon())).content == RED_PNG
    assert given == []


@pytest.mark.parametrize(
    "broken",
    [
        event("partial_image", b""),
        sketch(0, b"words"),
        sketch(0, SKETCHES[0][:-20]),
        sketch(0, SKETCHES[1][:200]),
        sketch(0, animated("PNG")),
        b'data: {"type": "image_generation.partial_image"}\n\n',
        b'data: {"type": "image_generation.partial_image", "b64_json": "no base64!"}\n\n',
        f"data: {_INDENTED}\n\n".encode(),
    ],
    ids=["empty", "words", "half a PNG", "half a JPEG", "animated", "missing", "no base64", "indented"],
)
async def test_a_broken_sketch_is_left_out_and_so_are_more_than_were_asked_for(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn, broken: bytes
) -> None:
    given = Sketches()
    endpoint.faults.append(streamed(broken, sketch(1, SKETCHES[1]), sketch(2, SKETCHES[2]), completed(RED_PNG)))
    image = await openai_with(capabilities=STREAMING).draw(sketched(given, partials=2), deadline=soon())
    assert (given, image.content) == ([(1, SKETCHES[1])], RED_PNG)


def error(**members: object) -> Reply:
    data = json.dumps({"type": "error", "error": {"message": "Words of the provider", "param": None, **members}})
    return streamed(sketch(0, SKETCHES[0]), f"event: error\ndata: {data}\n\n".encode())


_FLAT = b'data: {"type": "error", "code": "moderation_blocked", "message": "Words of the provider", "param": null}\n\n'
_LIMITED = replace(
    error(code="rate_limit_exceeded"), headers={"Content-Type": "text/event-stream", "Retry-After": "300"}
)

ENDS: Mapping[str, tuple[Reply, str, int, int]] = {
    "policy": (error(code="moderation_blocked", type="image_generation_user_error"), "refused", 1, 0),
    "policy, in a flat event": (streamed(_FLAT), "refused", 1, 0),
    "an error without a name": (
        streamed(b'data: {"error": {"code": "content_policy_violation"}}\n\n'),
        "refused",
        1,
        0,
    ),
    "key": (error(code="invalid_api_key"), "unusable", 1, 0),
    "limit": (error(code="rate_limit_exceeded"), "busy", 3, 0),
    "limit, to wait beyond the deadline": (_LIMITED, "busy", 1, 0),
    "request": (error(type="invalid_request_error"), "request", 1, 0),
    "server": (error(type="server_error"), "failed", 1, 1),
    "an error in words": (streamed(b'data: {"error": "Words of the provider"}\n\n'), "failed", 1, 1),
    "an error that is no JSON": (streamed(b"event: error\ndata: words\n\n"), "unreadable", 1, 1),
    "no event": (streamed(), "failed", 1, 1),
    "no image at the end": (streamed(sketch(0, SKETCHES[0])), "failed", 1, 1),
    "the connection ends": (streamed(_STREAM, cut_after=len(_STREAM) - 2), "failed", 1, 1),
    "half of the last event": (streamed(_STREAM[:-100]), "unreadable", 1, 1),
    "an event without its image": (streamed(b'data: {"type": "image_generation.completed"}\n\n'), "unreadable", 2, 2),
    "a broken image": (streamed(completed(RED_PNG[:-20])), "unreadable", 1, 1),
    "an image of another shape": (streamed(completed(image_bytes(1536, 1024))), "unreadable", 1, 1),
    "a status before the stream": (failed(500, "server_error"), "failed", 1, 1),
}


@pytest.mark.parametrize("end", ENDS)
async def test_each_end_of_a_stream_has_the_failure_and_the_price_of_the_same_without_a_stream(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn, end: str
) -> None:
    reply, failure, calls, paid_calls = ENDS[end]
    endpoint.faults.extend([replace(reply, headers={**reply.headers, "x-request-id": "req_1"})] * 3)
    request = sketched([])
    with pytest.raises(ProviderError) as raised:
        await openai_with(capabilities=STREAMING).draw(request, deadline=soon())
    assert (raised.value.failure, raised.value.provider_request_id) == (failure, "req_1")
    assert (len(endpoint.seen), request.tally.calls, request.tally.paid_calls) == (calls, calls, paid_calls)


@pytest.mark.parametrize(
    ("endless", "failure"),
    [
        (Reply(b" " * 9_000, is_endless=True), "unreadable"),
        (Reply(b"data: " + b"x" * 9_000 + b"\n\n", is_endless=True), "unreadable"),
        (Reply(b": keep-alive\n\n" * 100, is_endless=True), "unreadable"),
        (Reply(b"data: {}\n\n" * 100, is_endless=True), "unreadable"),
        (Reply(sketch(0, SKETCHES[0]), is_stuck=True), "failed"),
    ],
    ids=["a line", "large events", "comments", "small events", "silence"],
)
async def test_a_stream_is_limited_in_bytes_and_in_silence(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn, endless: Reply, failure: str
) -> None:
    provider = openai_with({"bytes_max": 5_000, "first_byte_seconds": 0.2}, capabilities=STREAMING)
    endpoint.faults.append(replace(endless, headers={"Content-Type": "text/event-stream"}))
    with pytest.raises(ProviderError) as raised:
        await provider.draw(sketched([]), deadline=soon())
    assert (raised.value.failure, raised.value.may_have_been_paid, len(endpoint.seen)) == (failure, True, 1)


async def test_streams_share_the_memory_of_responses(openai_with: OpenAIWith, endpoint: OpenAIStandIn) -> None:
    provider = openai_with({"held_bytes_max": 1}, capabilities=STREAMING)
    images = await asyncio.gather(*(provider.draw(sketched([]), deadline=soon()) for _ in range(3)))
    assert all(isinstance(image, Image) for image in images)
    assert len(endpoint.seen) == 3


class Chunks(httpx2.AsyncByteStream):
    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
async def test_an_event_is_the_same_wherever_its_bytes_are_divided(line_end: bytes) -> None:
    stream = ": ü\n\nevent: a\ndata: é\ndata: 2\n\ndata:3\n\n".encode().replace(b"\n", line_end)
    divided = [[stream[:at], stream[at:]] for at in range(len(stream) + 1)]
    for chunks in [*divided, [stream[at : at + 1] for at in range(len(stream))]]:
        events = list[tuple[str, str]]()

        async def take(found: httpx2.ServerSentEvent, events: list[tuple[str, str]] = events) -> bytes | None:
            events.append((found.event, found.data))
            return found.data.encode() if len(events) == 2 else None

        response = httpx2.Response(200, stream=Chunks(chunks))
        assert await read_events(response, Share(ResponseMemory(2**30)), bytes_max=100, take=take) == b"3"
        assert events == [("a", "é\n2"), ("message", "3")]
