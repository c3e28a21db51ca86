"""Images that were delivered, as clients look at them: whole or smaller."""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select

from app.core.images import ImageFormat
from app.core.security import is_id
from app.generations import thumbnails
from app.generations.collaborators import Generations
from app.generations.errors import ImageNotFound
from app.generations.records import SHOWN
from app.generations.run import draw_by_stub
from app.generations.spec import Delivered, image_name
from app.generations.thumbnails import Thumbnail
from app.models import Generation
from app.providers import DrawRequest, Size
from app.storage import PresignedUrl, Stored, stored_bytes


@dataclass(frozen=True)
class ServedImage:
    """The image of a delivered generation, or its thumbnail."""

    generation: Generation
    thumbnail: Thumbnail | None = None

    @property
    def original(self) -> str:
        """The name of the whole image."""
        return image_name(self.generation.id, self.generation.format, self.generation.attempts)

    @property
    def name(self) -> str:
        return self.thumbnail.name if self.thumbnail else self.original

    @property
    def etag(self) -> str:
        """Names these bytes, and no others."""
        return self.thumbnail.name if self.thumbnail else self.generation.id

    @property
    def format(self) -> ImageFormat:
        return self.thumbnail.format if self.thumbnail else self.generation.format


async def find_image(
    generations: Generations, *, generation_id: str, image_format: str, width: int | None = None
) -> ServedImage:
    """The image that may be looked at, or its thumbnail of this width: the image itself where it is no wider.

    Raises ImageNotFound for any other id, and for a format that it does not have: an image has its own, and a thumbnail
    one of `thumbnails.formats_of`.
    """
    if not is_id("gen", generation_id):
        raise ImageNotFound
    async with generations.sessions.begin() as session:
        generation = await session.scalar(select(Generation).where(Generation.id == generation_id, *SHOWN))
    if generation is None:
        raise ImageNotFound
    return _served(generation, image_format, width)


async def open_image(
    generations: Generations, image: ServedImage, start: int, end: int | None, *, group: str = ""
) -> Stored:
    """The bytes from `start` up to and not including `end`: the same every time. They are read from the store, or drawn
    once and kept for a while. Drawing waits for a turn of `group`, such as the client's address.

    Raises ImageNotFound where it is gone, and Unavailable when too much waits or the store cannot be reached.
    """
    async with generations.cancelled_on_disconnect():
        if _is_drawn_again(generations, image):
            return stored_bytes(await _fetch_drawn(generations, image, group), start, end)
        stored = await generations.store.get(image.name, start=start, end=end)
        if stored is None and image.thumbnail is not None:
            return stored_bytes(await thumbnails.make(generations, image.thumbnail, group=group), start, end)
    if stored is None:
        raise ImageNotFound
    return stored


async def find_size(generations: Generations, image: ServedImage) -> int | None:
    """The image's size in bytes; None where only drawing it would say. Raises ImageNotFound where it is gone, and
    Unavailable where the store cannot be reached.
    """
    if _is_drawn_again(generations, image):
        return generations.drawn.size_of(image.name)
    stored = await generations.store.get(image.name, end=0)
    if stored is not None:
        return stored.size
    if image.thumbnail is None or await generations.store.get(image.original, end=0) is None:
        raise ImageNotFound
    return None


async def presigned_url(generations: Generations, image: ServedImage, *, group: str = "") -> PresignedUrl | None:
    """Where clients are to be led for the image, which is there; None where it is to be had from this server. Raises
    what `open_image` raises.
    """
    if _is_drawn_again(generations, image):
        return None
    url = await generations.store.presigned_url(image.name)
    if url is not None and image.thumbnail is not None:
        await open_image(generations, image, 0, 0, group=group)  # the bucket cannot make it
    return url


async def open_delivered(generations: Generations, delivered: Delivered) -> Sequence[Stored]:
    """All images of a delivered request, in order: drawn once, since then they are equal, or as the store keeps them.
    One of the store is opened when it is read first; then `chunks` raises ImageNotFound too, where it is gone.

    Raises what `find_image` and `open_image` raise.
    """
    found = [await find_image(generations, generation_id=each, image_format=delivered.format) for each in delivered.ids]
    if _is_drawn_again(generations, found[0]):
        async with generations.cancelled_on_disconnect():
            content = await _fetch_drawn(generations, found[0], "")
        return [stored_bytes(content, 0, None) for _ in found]
    sizes = [(await open_image(generations, each, 0, 0)).size for each in found]
    chunks = [_chunks_when_read(generations, each) for each in found]
    return [Stored(size, 0, size, later) for size, later in zip(sizes, chunks, strict=True)]


async def _chunks_when_read(generations: Generations, image: ServedImage) -> AsyncIterator[bytes]:
    stored = await generations.store.get(image.name)
    if stored is None:
        raise ImageNotFound
    async for chunk in stored.chunks:
        yield chunk


def _served(generation: Generation, image_format: str, width: int | None) -> ServedImage:
    own = generation.format
    if image_format == own and (width is None or width >= Size.of(generation.size).width):
        return ServedImage(generation)
    found = next((each for each in thumbnails.formats_of(own) if each == image_format), None)
    if width is None or found is None:
        raise ImageNotFound
    return ServedImage(generation, Thumbnail(ServedImage(generation).original, width, found))


def _is_drawn_again(generations: Generations, image: ServedImage) -> bool:
    return image.generation.provider == generations.catalogue.stub.name


async def _fetch_drawn(generations: Generations, image: ServedImage, group: str) -> bytes:
    return await generations.drawn.fetch(image.name, partial(_draw_again, generations, image, group), group=group)


async def _draw_again(generations: Generations, image: ServedImage, group: str) -> bytes:
    generation = image.generation
    if image.thumbnail is not None:
        whole = await _fetch_drawn(generations, ServedImage(generation), group)
        return await thumbnails.scale(generations, whole, image.thumbnail, group=group)
    request = DrawRequest(generation.prompt, Size.of(generation.size), model=generation.model, group=group)
    return await draw_by_stub(generations, request, generation.format, deadline=math.inf)
