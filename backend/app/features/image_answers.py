"""Images in a response, in base64 within JSON: read and encoded while they are sent, within a bound on memory."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

import pybase64
from fastapi.responses import StreamingResponse

from app.catalogue.routing import Plan
from app.core.byte_budget import ByteShare
from app.core.errors import ApiError, Unavailable
from app.generations.collaborators import Generations
from app.generations.serve import open_delivered
from app.generations.spec import Delivered
from app.services import Services
from app.storage import Stored, stored_bytes

PLACE = "*"
"""Stands for an image in the text of a response, and nowhere else in it."""

MODEL_HEADER = b"x-model"
"""Names the model that drew, whichever alias was asked for."""

_SENDING_BYTES = 1024 * 1024  # a piece that is read, and two that are encoded
_PIECE_BYTES = 3 * 96 * 1024  # a multiple of 3 has no padding
_WAIT_SECONDS = 10


@contextmanager
def answer_memory(services: Services, plan: Plan | None, *, holds_images: bool) -> Iterator[ByteShare]:
    """The response's share of the memory for responses, until it was sent. Images that are paid wait for it in the
    store.

    For images of the stub, before they are drawn: raises Unavailable where none is left. The plan is None for what
    cannot be drawn, and is refused, or replayed from a time when it could.
    """
    is_free = plan is None or plan.is_free
    with (services.free_answer_memory if is_free else services.paid_answer_memory).share() as memory:
        if holds_images and plan is not None and plan.is_free:
            # An image of the stub has about a byte a pixel at most, and all images of a request are the same bytes.
            needed = _SENDING_BYTES + plan.size.width * plan.size.height
            if not memory.hold(needed):
                raise Unavailable
        yield memory


async def opened_images(
    generations: Generations, delivered: Delivered, contents: list[bytes], memory: ByteShare
) -> deque[Stored]:
    """The images, in order, of which `contents` holds the bytes that are in memory.
    While it waits it has none of them in memory: they are opened afterwards, as a replay's.

    Raises Unavailable where the client would have to wait too long for memory, and what `open_delivered` raises.
    """
    if memory.hold(_SENDING_BYTES + sum({id(each): len(each) for each in contents}.values())):
        opened = [stored_bytes(each, 0, None) for each in contents]
        return deque(opened or await open_delivered(generations, delivered))
    contents.clear()
    try:
        async with generations.cancelled_on_disconnect():
            await memory.wait_to_hold(_SENDING_BYTES, seconds=_WAIT_SECONDS)
        return deque(await open_delivered(generations, delivered))
    except ApiError as error:
        error.may_have_been_paid = not delivered.is_replay
        raise


async def answer_in_base64(
    generations: Generations,
    delivered: Delivered,
    text: str,
    memory: ByteShare,
    *,
    when_read: Callable[[], None],
) -> StreamingResponse:
    """The JSON `text` with the delivered images in place of each PLACE, in base64, which is made piece by piece as fast
    as the client reads: of an image that is in memory if the budget allows it, of any other from the store. `when_read`
    is called before the last byte is sent.

    Raises what `opened_images` raises.
    """
    texts = text.split(PLACE)
    contents = list(delivered.contents)
    delivered = delivered._replace(contents=())
    images = await opened_images(generations, delivered, contents, memory)
    length = sum(map(len, texts)) + sum(_base64_length(each.size) for each in images)
    pieces = _pieces([text.encode() for text in texts], images, when_read)
    return StreamingResponse(pieces, media_type="application/json", headers={"Content-Length": str(length)})


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
