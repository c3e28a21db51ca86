"""Makes an image that a client sent ready to leave for a provider."""

from io import BytesIO
from typing import NamedTuple

from PIL import Image as Pillow

from app.core.images import ImageFormat
from app.providers import Size


class InvalidInput(ValueError):
    """The sentence says what is wrong."""


class TakenIn(NamedTuple):
    content: bytes
    format: ImageFormat
    size: Size


def take_in(content: bytes, *, first_frame: bool = False) -> TakenIn:
    """The image, whole. Raises InvalidInput."""
    del first_frame
    formats: dict[str, ImageFormat] = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}
    try:
        with Pillow.open(BytesIO(content), formats=list(formats)) as image:
            image.load()
            return TakenIn(content, formats[image.format or ""], Size(*image.size))
    except (OSError, SyntaxError, ValueError):
        raise InvalidInput("Must be a whole PNG, JPEG or WebP image") from None


def take_in_mask(content: bytes, size: Size) -> TakenIn:
    """The mask. Raises InvalidInput."""
    taken = take_in(content)
    if taken.size != size:
        raise InvalidInput(f"The mask must have the size of the first image, {size}")
    return taken
