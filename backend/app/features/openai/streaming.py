"""The answer to a request with `stream`: events with sketches and images, while a task of its own makes them."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pybase64
from fastapi import Request, Response

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError
from app.features.admission import Admission
from app.features.image_answers import PLACE, base64_of
from app.features.openai import service
from app.features.watched import KEEP_ALIVE, Sketch, Watched, watched_response
from app.generations.spec import Delivered, GenerationSpec

_USAGE = {
    **dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0),
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


async def stream_answer(
    request: Request, admission: Admission, spec: GenerationSpec, memory: ByteShare, *, partials: int, route: str
) -> Response:
    """The events of the request. Raises what `watched_response` raises; a later error is an event of its own."""
    kind = "image_edit" if spec.images else "image_generation"
    events = partial(_events, spec=spec, memory=memory, kind=kind)
    return await watched_response(request, admission, spec, partials=partials, route=route, events=events)


async def _events(watched: Watched, *, spec: GenerationSpec, memory: ByteShare, kind: str) -> AsyncIterator[bytes]:
    async for sketch in watched.sketches():
        yield KEEP_ALIVE if sketch is None else _partial(kind, spec, sketch)
    try:
        delivered, images = await watched.images(memory)
    except ApiError as error:
        yield _error_event(service.error_body(error))
        return
    while images:
        before, after = _completed(kind, spec, delivered).split(PLACE.encode())
        yield before
        async for piece in base64_of(images.popleft().chunks):  # each image is forgotten when it is written
            yield piece
        yield after
    for failed in delivered.errors:
        yield _error_event(service.failed_image_body(failed))


def _partial(kind: str, spec: GenerationSpec, sketch: Sketch) -> bytes:
    text, at = pybase64.b64encode(sketch.content).decode(), int(time.time())
    return _event(f"{kind}.partial_image", spec, b64_json=text, partial_image_index=sketch.place, created_at=at)


def _completed(kind: str, spec: GenerationSpec, delivered: Delivered) -> bytes:
    made = replace(spec, size=delivered.size, format=delivered.format, quality=delivered.quality)
    at = int(delivered.created_at.timestamp())
    return _event(f"{kind}.completed", made, b64_json=PLACE, created_at=at, usage=_USAGE)


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
