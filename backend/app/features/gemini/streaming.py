"""The response of `streamGenerateContent`: one chunk with the whole image, as an event or as the item of an array."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

from fastapi import Request, Response

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError
from app.features.admission import Admission
from app.features.gemini.answers import BLOCKED, content_frame
from app.features.gemini.errors import error_body
from app.features.image_answers import PLACE, base64_of
from app.features.watched import EVENT_STREAM, Watched, watched_response
from app.generations.spec import GenerationSpec
from app.providers import ContentRefused

_KEEP_ALIVE = b"\n"
"""Google's clients for Python take a comment between events for a chunk, and an empty line for nothing."""


class _Form(NamedTuple):
    """What is around the chunk."""

    media_type: str
    before: bytes
    after: bytes


_EVENTS = _Form(EVENT_STREAM, b"data: ", b"\n\n")
_ARRAY = _Form("application/json", b"[", b"]")


async def stream_answer(
    request: Request, admission: Admission, spec: GenerationSpec, memory: ByteShare, *, as_events: bool, route: str
) -> Response:
    """The chunk of the request: nothing is answered before there is one, or 15 seconds have passed.

    Raises what `Watched.start` raises, but for a refusal of the provider's, which is a chunk, as any later error is.
    """
    form = _EVENTS if as_events else _ARRAY
    pieces = partial(_pieces, memory, form)
    try:
        return await watched_response(
            request, admission, spec, partials=0, route=route, events=pieces, media_type=form.media_type
        )
    except ContentRefused as refused:
        return Response(form.before + _of_error(refused) + form.after, media_type=form.media_type)


async def _pieces(memory: ByteShare, form: _Form, watched: Watched) -> AsyncIterator[bytes]:
    async for _ in watched.sketches():
        yield _KEEP_ALIVE
    try:
        delivered, images = await watched.images(memory)
    except ApiError as error:
        yield form.before + _of_error(error) + form.after
        return
    before, after = content_frame(delivered).split(PLACE)
    yield form.before + before.encode()
    async for piece in base64_of(images.popleft().chunks):
        yield piece
    yield after.encode() + form.after


def _of_error(error: ApiError) -> bytes:
    if isinstance(error, ContentRefused):
        return BLOCKED.model_dump_json(exclude_none=True).encode()
    return json.dumps(error_body(error)).encode()
