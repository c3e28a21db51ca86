"""Smaller copies of images, in the sizes that people look at: made when they are first asked for, then kept."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from app.core.images import ImageFormat
from app.core.logs import logger
from app.generations.collaborators import Generations
from app.generations.errors import ImageNotFound
from app.generations.spec import names_of_attempts
from app.providers.decode import InvalidImage, thumbnail
from app.storage import read_whole

WIDTHS = (64, 128, 256, 512, 1024)
"""Pixels."""


@dataclass(frozen=True)
class Thumbnail:
    """A copy of the image with the name `original`, `width` pixels wide, or as wide as the image where that is less."""

    original: str
    width: int
    format: ImageFormat

    @property
    def name(self) -> str:
        """The name under which it is kept: beside the original, by the rules of stores."""
        return f"{self.original.partition('.')[0]}.w{self.width}.{self.format}"


def formats_of(image_format: ImageFormat) -> set[ImageFormat]:
    """The formats that thumbnails of an image have: its own, and WebP, which is a tenth of the size of a PNG."""
    return {image_format, "webp"}


def names_of_thumbnails(original: str, image_format: ImageFormat) -> Sequence[str]:
    """The names of all that may be made from an image."""
    return [Thumbnail(original, width, each).name for width in WIDTHS for each in formats_of(image_format)]


async def make(generations: Generations, wanted: Thumbnail, *, group: str) -> bytes:
    """The thumbnail of a stored image, made from the whole and kept beside it: once, for all who ask at the same time.

    Raises ImageNotFound where the image is gone or cannot be decoded, and Unavailable when too much waits or the store
    cannot be reached.
    """
    return await generations.thumbnail_calls.join(wanted.name, partial(_make, generations, wanted, group), group=group)


async def scale(generations: Generations, content: bytes, wanted: Thumbnail, *, group: str) -> bytes:
    """The thumbnail of these bytes. Raises ImageNotFound where they cannot be decoded."""
    try:
        work = partial(thumbnail, content, wanted.width, wanted.format)
        return (await generations.drawing.run(work, group=group)).content
    except InvalidImage:
        logger.warning("image_not_readable")
        raise ImageNotFound from None


async def delete_with_thumbnails(
    generations: Generations, generation_id: str, image_format: ImageFormat, attempts: int
) -> None:
    """Deletes a generation's image, whichever of its attempts it is of, and everything that was made from it.

    Raises StoreUnavailable, after which some may be left: then it is to be called again.
    """
    originals = names_of_attempts(generation_id, image_format, attempts)
    copies = names_of_thumbnails(originals[0], image_format)
    for name in (originals[0], *copies):
        generations.drawn.drop(name)
    # The image first: a request that puts a thumbnail after this finds the image gone, and deletes the thumbnail.
    await asyncio.gather(*map(generations.store.delete, originals))
    await asyncio.gather(*map(generations.store.delete, copies))


async def _make(generations: Generations, wanted: Thumbnail, group: str) -> bytes:
    async with generations.thumbnail_turns.turn(group):  # so few images are in memory as a whole
        made = await read_whole(generations.store, wanted.name)
        if made is not None:  # by another call, which ended after this one's client had found nothing
            return made
        whole = await read_whole(generations.store, wanted.original)
        if whole is None:
            raise ImageNotFound
        content = await scale(generations, whole, wanted, group=group)
        await asyncio.shield(_keep(generations, wanted, content))  # to its end, though the last client may have left
    return content


async def _keep(generations: Generations, wanted: Thumbnail, content: bytes) -> None:
    await generations.store.put(wanted.name, content)
    if await generations.store.get(wanted.original, end=0) is None:
        await generations.store.delete(wanted.name)
        raise ImageNotFound
