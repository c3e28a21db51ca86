"""The answer to a request for images: their URLs, or their bytes in base64, which are read while they are sent."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import pybase64
from fastapi import Response
from fastapi.responses import StreamingResponse

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError
from app.features.openai.schemas import Image, Images
from app.generations.collaborators import Generations
from app.generations.serve import open_delivered
from app.generations.spec import Delivered, GenerationSpec
from app.storage import Stored, stored_bytes

SENDING_BYTES = 1024 * 1024
"""What an answer in base64 has in memory while it is sent: a piece that is read, and two that are encoded."""

MODEL_HEADER = b"x-model"
"""Names the model that drew, whichever alias was asked for."""

_PIECE_BYTES = 3 * 96 * 1024  # a multiple of 3 has no padding
_WAIT_SECONDS = 10
_PLACE = "*"  # stands for an image in the JSON, and nowhere else in it


async def images_answer(
    generations: Generations,
    delivered: Delivered,
    spec: GenerationSpec,
    memory: ByteShare,
    *,
    when_read: Callable[[], None],
) -> Images | Response:
    """The images as the request wants them. Base64 is made piece by piece as fast as the client reads: of an image that
    is in memory if the budget allows it, of any other from the store. `when_read` is called before the last byte is
    sent.

    Raises Unavailable where the client would have to wait too long for memory, and what `open_delivered` raises.
    """
    answer = partial(
        Images,
        created=int(delivered.created_at.timestamp()),
        size=delivered.size,
        output_format=delivered.format,
        quality=None if delivered.quality == "auto" else delivered.quality,
        errors=delivered.errors or None,
    )
    if not spec.as_bytes:
        data = [Image(url=url) for url in delivered.urls]
        return answer(data=data)
    frame = answer(data=[Image(b64_json=_PLACE)] * len(delivered.ids))
    texts = frame.model_dump_json(exclude_none=True).split(_PLACE)
    contents = list(delivered.contents)
    delivered = delivered._replace(contents=())
    images = await opened_images(generations, delivered, contents, memory)
    length = sum(map(len, texts)) + sum(_base64_length(each.size) for each in images)
    pieces = _pieces([text.encode() for text in texts], images, when_read)
    return StreamingResponse(pieces, media_type="application/json", headers={"Content-Length": str(length)})


async def opened_images(
    generations: Generations, delivered: Delivered, contents: list[bytes], memory: ByteShare
) -> deque[Stored]:
    """The images, in order, of which `contents` holds the bytes that are in memory.
    While it waits it has none of them in memory: they are opened afterwards, as a replay's.
    """
    if memory.hold(SENDING_BYTES + sum({id(each): len(each) for each in contents}.values())):
        opened = [stored_bytes(each, 0, None) for each in contents]
        return deque(opened or await open_delivered(generations, delivered))
    contents.clear()
    try:
        async with generations.cancelled_on_disconnect():
            await memory.wait_to_hold(SENDING_BYTES, seconds=_WAIT_SECONDS)
        return deque(await open_delivered(generations, delivered))
    except ApiError as error:
        error.may_have_been_paid = not delivered.is_replay
        raise


async def _pieces(texts: Sequence[bytes], images: deque[Stored], when_read: Callable[[], None]) -> AsyncIterator[bytes]:
    for text in texts[:-1]:
        before = text
        async for piece in base64_of(images.popleft().chunks):  # each image is forgotten when it is written
            yield before + piece
            before = b""
    yield texts[-1][:-1]  # the server takes it when the client has read all but little of what came before
    when_read()
    yield texts[-1][-1:]


async def base64_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The base64 of all chunks together, in pieces. On the event loop: a piece takes a fraction of a millisecond, less
    than a thread would.
    """
    rest = b""
    async for chunk in chunks:
        data = memoryview(rest + chunk if rest else chunk)
        end = len(data) - len(data) % 3
        for start in range(0, end, _PIECE_BYTES):
            yield pybase64.b64encode(data[start : min(start + _PIECE_BYTES, end)])
        rest = bytes(data[end:])
    if rest:
        yield pybase64.b64encode(rest)


def _base64_length(size: int) -> int:
    return -(-size // 3) * 4
