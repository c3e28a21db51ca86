"""The answer to a request with `stream`: events with sketches and images, while a task of its own makes them.

The stream only watches. A client that hangs up ends the stream and nothing else: the generation keeps its slots until
it has ended, and counts.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pybase64
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError, InternalError, as_api_error
from app.core.logs import logger
from app.features.admission import Admission
from app.features.dependencies import services_of
from app.features.openai import service
from app.features.openai.answers import MODEL_HEADER, base64_of, opened_images
from app.generations.collaborators import Generations
from app.generations.service import Watch
from app.generations.spec import Delivered, GenerationSpec
from app.web.headers import add_response_headers
from app.web.state import request_state

KEEP_ALIVE_SECONDS = 15
"""As often as a silent stream gets a comment, so that no proxy takes it for dead."""

_COMMENT = b": keep-alive\n\n"
_PLACE = "*"
_HEADERS = {"X-Accel-Buffering": "no"}  # for nginx, which would keep events back
_USAGE = {
    **dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0),
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


async def stream_answer(
    request: Request, admission: Admission, spec: GenerationSpec, memory: ByteShare, *, partials: int, route: str
) -> Response:
    """The events of the request, from the first on: nothing is answered before there is one, or 15 seconds have passed.

    Raises what `Admission.generate` raises until then; a later error is an event of its own. What was paid is read from
    the store as fast as the client reads. Of sketches only the latest is kept for a client that reads slowly.
    """
    services = services_of(request)
    sketches = _Sketches(spec)
    give_back = request_state(request.scope)["overload_guard"].hand_over(request_state(request.scope))
    admission.keep_slots()

    async def generate() -> Delivered:
        try:
            watch = Watch(partials if spec.count == 1 else 0, sketches.put)
            with _as_api_errors():
                return await admission.generate(spec, route=route, watch=watch)
        finally:
            give_back()
            admission.release()

    generating = services.detached.start(generate())
    await sketches.wait_beside(generating)
    if generating.done() and not sketches.is_waiting:
        model = generating.result().model  # raises what an ordinary response can still say
    else:
        plan = admission.plan(spec)
        model = plan.model.name if plan else ""
    add_response_headers(request, {MODEL_HEADER: model.encode()})
    events = _events(services.generations, generating, sketches, spec, memory)
    return StreamingResponse(events, media_type="text/event-stream", headers=_HEADERS)


class _Sketches:
    """The latest sketch of an image that is being drawn, until it was sent."""

    def __init__(self, spec: GenerationSpec) -> None:
        self._spec = spec
        self._event: bytes | None = None
        self._arrived = asyncio.Event()

    @property
    def is_waiting(self) -> bool:
        return self._event is not None

    def put(self, index: int, content: bytes) -> None:
        text, at = pybase64.b64encode(content).decode(), int(time.time())
        self._event = _event(
            "image_generation.partial_image", self._spec, b64_json=text, partial_image_index=index, created_at=at
        )
        self._arrived.set()

    def take(self) -> bytes:
        """The event of the sketch that waits; nothing where none does."""
        event, self._event = self._event, None
        self._arrived.clear()
        return event or b""

    async def wait_beside(self, task: asyncio.Task[Any]) -> None:
        """Returns once a sketch waits, the task has ended, or 15 seconds have passed."""
        arrival = asyncio.create_task(self._arrived.wait())
        try:
            await asyncio.wait({task, arrival}, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()


async def _events(
    generations: Generations,
    generating: asyncio.Task[Delivered],
    sketches: _Sketches,
    spec: GenerationSpec,
    memory: ByteShare,
) -> AsyncIterator[bytes]:
    while sketches.is_waiting or not generating.done():
        yield sketches.take() or _COMMENT
        await sketches.wait_beside(generating)
    try:
        delivered = generating.result()
        contents, delivered = list(delivered.contents), delivered._replace(contents=())
        del generating  # its result has the images too
        with _as_api_errors():
            images = await opened_images(generations, delivered, contents, memory)
        del contents
    except ApiError as error:
        yield _error_event(service.error_body(error))
        return
    while images:
        before, after = _completed(spec, delivered).split(_PLACE.encode())
        yield before
        async for piece in base64_of(images.popleft().chunks):  # each image is forgotten when it is written
            yield piece
        yield after
    for failed in delivered.errors:
        yield _error_event(service.failed_image_body(failed))


@contextmanager
def _as_api_errors() -> Iterator[None]:
    """Turns any error into one that has a body. Logs those of 500 and above: of a stream that has begun, the request's
    own line in the log says 200, and nobody may be there any more to be told.
    """
    try:
        yield
    except Exception as raised:
        error = as_api_error(raised)
        if error.status >= InternalError.status:
            paid = error.may_have_been_paid
            logger.error("stream_failed", code=error.code, may_have_been_paid=paid, exc_info=True)
        raise error from raised


def _completed(spec: GenerationSpec, delivered: Delivered) -> bytes:
    made = replace(spec, size=delivered.size, format=delivered.format, quality=delivered.quality)
    at = int(delivered.created_at.timestamp())
    return _event("image_generation.completed", made, b64_json=_PLACE, created_at=at, usage=_USAGE)


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
