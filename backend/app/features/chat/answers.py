"""The answers of chat completions: whole, or as a stream of chunks."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from fastapi import Request, Response

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError
from app.core.security import new_id
from app.features.admission import Admission
from app.features.chat.dependencies import AdmittedChat
from app.features.chat.schemas import ChatCompletion, image_completion, sentence_completion
from app.features.dependencies import generations_of
from app.features.image_answers import MODEL_HEADER, PLACE, answer_in_base64, base64_of
from app.features.openai.service import error_body
from app.features.watched import EVENT_STREAM, KEEP_ALIVE, STREAM_HEADERS, Watched, watched_response
from app.web.headers import add_response_headers


async def answer_chat(
    request: Request, admission: Admission, asked: AdmittedChat, *, route: str
) -> ChatCompletion | Response:
    """The image that is asked for, in a `data:` URL, or the sentence that a request for text gets. Raises what
    `Admission.generate` and `answer_in_base64` raise.
    """
    if asked.drawing is None:
        answer = sentence_completion(new_id("chatcmpl"), model=asked.model, created=int(time.time()))
        return Response(_chunks(answer), media_type=EVENT_STREAM, headers=STREAM_HEADERS) if asked.is_stream else answer
    spec, memory = asked.drawing
    if asked.is_stream:
        events = partial(_events, memory=memory)
        return await watched_response(request, admission, spec, partials=0, route=route, events=events)
    delivered = await admission.generate(spec, route=route)
    add_response_headers(request, {MODEL_HEADER: delivered.model.encode()})
    text = image_completion(delivered, content=PLACE).model_dump_json(exclude_none=True)
    return await answer_in_base64(generations_of(request), delivered, text, memory, when_read=admission.release)


async def _events(watched: Watched, *, memory: ByteShare) -> AsyncIterator[bytes]:
    async for _ in watched.sketches():
        yield KEEP_ALIVE
    try:
        delivered, images = await watched.images(memory)
    except ApiError as error:
        yield _event(error_body(error))
        return
    before, after = _chunks(image_completion(delivered, content=PLACE)).split(PLACE.encode())
    yield before
    async for piece in base64_of(images.popleft().chunks):
        yield piece
    yield after


def _chunks(answer: ChatCompletion) -> bytes:
    """The answer as events: the whole message, why it ends, and the mark of the end."""
    said = answer.model_dump(exclude_none=True)
    [choice] = said.pop("choices")
    usage = said.pop("usage")
    said["object"] = "chat.completion.chunk"
    message = {"index": 0, "delta": choice["message"], "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    return b"".join(
        [
            _event({**said, "choices": [message]}),
            _event({**said, "choices": [end], "usage": usage}),
            b"data: [DONE]\n\n",
        ]
    )


def _event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()
