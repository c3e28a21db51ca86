"""The formats of images, the media type of each, how long they may be cached, and how images begin."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

ImageFormat = Literal["png", "jpeg", "webp"]

IMAGE_FORMATS: Sequence[ImageFormat] = get_args(ImageFormat)
MEDIA_TYPES: Mapping[str, str] = {each: f"image/{each}" for each in IMAGE_FORMATS}
CACHE_CONTROL = "private, max-age=31536000, immutable"
"""An image never changes: neither its URL here nor the object in a bucket."""

IMAGE_START_BYTES = 12
_START = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|.{4}ftyp", re.DOTALL)


def begins_as_image(content: bytes | bytearray) -> bool:
    """Whether the first IMAGE_START_BYTES are those of a PNG, JPEG, GIF, WebP, AVIF or HEIC."""
    return _START.match(content) is not None
