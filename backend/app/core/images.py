"""The formats of images, the media type of each, and how long they may be cached."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

ImageFormat = Literal["png", "jpeg", "webp"]

IMAGE_FORMATS: Sequence[ImageFormat] = get_args(ImageFormat)
MEDIA_TYPES: Mapping[str, str] = {each: f"image/{each}" for each in IMAGE_FORMATS}
CACHE_CONTROL = "private, max-age=31536000, immutable"
"""An image never changes: neither its URL here nor the object in a bucket."""
