"""The formats of images, and the media type of each."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

ImageFormat = Literal["png", "jpeg", "webp"]

IMAGE_FORMATS: Sequence[ImageFormat] = get_args(ImageFormat)
MEDIA_TYPES: Mapping[str, str] = {each: f"image/{each}" for each in IMAGE_FORMATS}
