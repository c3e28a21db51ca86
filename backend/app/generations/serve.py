"""Images that were delivered, as clients look at them."""

import math
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import select

from app.core.security import is_id
from app.generations.collaborators import Generations
from app.generations.errors import ImageNotFound
from app.generations.records import SHOWN
from app.generations.run import draw
from app.generations.spec import Delivered, image_name
from app.models import Generation
from app.providers import DrawRequest, Size
from app.storage import PresignedUrl, Stored, stored_bytes


async def find_delivered(generations: Generations, *, generation_id: str, image_format: str) -> Generation:
    """The generation whose image may be looked at. Raises ImageNotFound for any other id or format."""
    if not is_id("gen", generation_id):
        raise ImageNotFound
    async with generations.sessions.begin() as session:
        generation = await session.scalar(select(Generation).where(Generation.id == generation_id, *SHOWN))
    if generation is None or generation.format != image_format:
        raise ImageNotFound
    return generation


async def open_image(generations: Generations, generation: Generation, start: int, end: int | None) -> Stored:
    """A delivered generation's image from `start` up to and not including `end`: drawn, the same bytes every time, or
    as the store keeps it.

    Raises ImageNotFound where it is gone, and Unavailable when too much waits or the store cannot be reached.
    """
    async with generations.cancelled_on_disconnect():
        if _is_drawn_again(generations, generation):
            return stored_bytes(await _draw_again(generations, generation), start, end)
        name = image_name(generation.id, generation.format)
        stored = await generations.store.get(name, start=start, end=end)
    if stored is None:
        raise ImageNotFound
    return stored


async def presigned_url(generations: Generations, generation: Generation) -> PresignedUrl | None:
    """Where clients are to be led for a delivered generation's image; None where it is to be had from this server."""
    if _is_drawn_again(generations, generation):
        return None
    return await generations.store.presigned_url(image_name(generation.id, generation.format))


async def open_delivered(generations: Generations, delivered: Delivered) -> Sequence[Stored]:
    """All images of a delivered request, in order: drawn once, since then they are equal, or as the store keeps them.
    One of the store is opened when it is read first; then `chunks` raises ImageNotFound too, where it is gone.

    Raises what `find_delivered` and `open_image` raise.
    """
    found = [
        await find_delivered(generations, generation_id=each, image_format=delivered.format) for each in delivered.ids
    ]
    if _is_drawn_again(generations, found[0]):
        async with generations.cancelled_on_disconnect():
            content = await _draw_again(generations, found[0])
        return [stored_bytes(content, 0, None) for _ in found]
    sizes = [(await open_image(generations, each, 0, 0)).size for each in found]
    chunks = [_chunks_when_read(generations, each) for each in found]
    return [Stored(size, 0, size, later) for size, later in zip(sizes, chunks, strict=True)]


async def _chunks_when_read(generations: Generations, generation: Generation) -> AsyncIterator[bytes]:
    stored = await generations.store.get(image_name(generation.id, generation.format))
    if stored is None:
        raise ImageNotFound
    async for chunk in stored.chunks:
        yield chunk


def _is_drawn_again(generations: Generations, generation: Generation) -> bool:
    return generation.provider == generations.providers["test"].name


async def _draw_again(generations: Generations, generation: Generation) -> bytes:
    request = DrawRequest(generation.prompt, Size.of(generation.size))
    return await draw(generations, generations.providers["test"], request, generation.format, deadline=math.inf)
