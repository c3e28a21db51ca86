"""The files of images that callers send: read without decoding a pixel, and written again without their metadata."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from app.core.images import ImageFormat
from app.providers import Size
from app.providers.structure import BrokenImage

INPUT_PIXELS_MAX = 3 * 2**24
"""50 megapixels: the largest photographs of phones have 8192x6144. Decoded from HEIC they take 360 MiB for a second."""
INPUT_SIDE_MAX = 2**16 - 1
PARTS_MAX = 2**15
"""The chunks, segments or boxes of one file. Photographs of 50 MB have 7,000."""

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class StrippedImage:
    """An image file with nothing in it but its first image and the colour profile of that.

    Its parts are within the bytes; whether they are whole is for `check_whole` or for a decoder to find out.
    """

    content: bytes
    format: Literal["png", "jpeg", "webp", "gif", "heif"]
    size: Size
    """Of the pixels as they are stored."""
    orientation: int = 1
    """As in EXIF, 1 to 8, by which the stored pixels are still to be turned."""
    is_animated: bool = False
    """Whether the file had more images."""
    plain_format: ImageFormat | None = None
    """In which the pixels can be sent on as they are; None where they cannot: CMYK, 16 bits a sample, other formats."""


class TooManyPixels(Exception):
    """What is stored would be larger than INPUT_PIXELS_MAX or INPUT_SIDE_MAX."""


def check_size(width: int, height: int) -> None:
    """Raises TooManyPixels for an image that is not decoded."""
    if width * height > INPUT_PIXELS_MAX or max(width, height) > INPUT_SIDE_MAX:
        raise TooManyPixels


def bounded(parts: Iterator[Part], parts_max: int = PARTS_MAX) -> Iterator[Part]:
    """The same parts. Raises BrokenImage in place of the first one that is too many."""
    for count, part in enumerate(parts):
        if count == parts_max:
            raise BrokenImage
        yield part
