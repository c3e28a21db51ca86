"""The answer to a request with `stream`: events with sketches and images, while a task of its own makes them."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pybase64
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError
from app.features.admission import Admission
from app.features.image_answers import MODEL_HEADER, PLACE, base64_of
from app.features.openai import service
from app.features.watched import KEEP_ALIVE, STREAM_HEADERS, Sketch, Watched
from app.generations.spec import Delivered, GenerationSpec
from app.web.headers import add_response_headers

_USAGE = {
    **dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0),
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


async def stream_answer(
    request: Request, admission: Admission, spec: GenerationSpec, memory: ByteShare, *, partials: int, route: str
) -> Response:
    """The events of the request, from the first on: nothing is answered before there is one, or 15 seconds have passed.

    Raises what `Watched.start` raises; a later error is an event of its own.
    """
    watched = await Watched.start(request, admission, spec, partials=partials, route=route)
    plan = None if watched.model else admission.plan(spec)
    add_response_headers(request, {MODEL_HEADER: (watched.model or (plan.model.name if plan else "")).encode()})
    return StreamingResponse(_events(watched, spec, memory), media_type="text/event-stream", headers=STREAM_HEADERS)


async def _events(watched: Watched, spec: GenerationSpec, memory: ByteShare) -> AsyncIterator[bytes]:
    async for sketch in watched.sketches():
        yield KEEP_ALIVE if sketch is None else _partial(spec, sketch)
    try:
        delivered, images = await watched.images(memory)
    except ApiError as error:
        yield _error_event(service.error_body(error))
        return
    while images:
        before, after = _completed(spec, delivered).split(PLACE.encode())
        yield before
        async for piece in base64_of(images.popleft().chunks):  # each image is forgotten when it is written
            yield piece
        yield after
    for failed in delivered.errors:
        yield _error_event(service.failed_image_body(failed))


def _partial(spec: GenerationSpec, sketch: Sketch) -> bytes:
    text, at = pybase64.b64encode(sketch.content).decode(), int(time.time())
    return _event(
        "image_generation.partial_image", spec, b64_json=text, partial_image_index=sketch.place, created_at=at
    )


def _completed(spec: GenerationSpec, delivered: Delivered) -> bytes:
    made = replace(spec, size=delivered.size, format=delivered.format, quality=delivered.quality)
    at = int(delivered.created_at.timestamp())
    return _event("image_generation.completed", made, b64_json=PLACE, created_at=at, usage=_USAGE)


def _event(name: str, spec: GenerationSpec, **members: Any) -> bytes:
    data = {
        "type": name,
        "size": spec.size,
        "quality": spec.quality,
        "background": spec.background,
        "output_format": spec.format,
        **members,
    }
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _error_event(body: dict[str, Any]) -> bytes:
    return f"event: error\ndata: {json.dumps({'type': 'error', **body})}\n\n".encode()
