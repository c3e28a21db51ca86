"""Images that were delivered, as clients look at them."""

import math

from sqlalchemy import select

from app.core.images import ImageFormat
from app.core.security import is_id
from app.generations.collaborators import Generations
from app.generations.errors import ImageNotFound
from app.generations.records import SHOWN
from app.generations.run import draw
from app.generations.spec import image_name
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


async def read_image(generations: Generations, *, generation_id: str, image_format: ImageFormat) -> bytes:
    """The whole image of a delivered generation. Raises what `find_delivered` and `open_image` raise."""
    generation = await find_delivered(generations, generation_id=generation_id, image_format=image_format)
    image = await open_image(generations, generation, 0, None)
    return b"".join([chunk async for chunk in image.chunks])


def _is_drawn_again(generations: Generations, generation: Generation) -> bool:
    return generation.provider == generations.providers["test"].name


async def _draw_again(generations: Generations, generation: Generation) -> bytes:
    request = DrawRequest(generation.prompt, Size.of(generation.size))
    return await draw(generations, generations.providers["test"], request, generation.format, deadline=math.inf)
