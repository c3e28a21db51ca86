"""Decodes a provider's image at a bounded cost, and fits it to exactly the requested size."""

import struct
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO

from PIL import ExifTags, ImageOps
from PIL import Image as Pillow

from app.core.images import IMAGE_FORMATS, ImageFormat
from app.providers import Image, Size, vips
from app.providers.pixels import FAULTS, SAVING, decode_pixels, encode, flatten, profile_of, resize, to_rgb
from app.providers.structure import check_whole, has_late_metadata

PIXELS_MAX = 2**25
"""Twice the pixels of the largest image that a model draws today."""

_FORMATS = {each.upper(): each for each in IMAGE_FORMATS}
"""Pillow's name of each format."""
_SAVING_SMALL: Mapping[ImageFormat, Mapping[str, int]] = {
    "png": {"compress_level": 6},
    "jpeg": {"quality": 80},
    "webp": {"quality": 70, "method": 4},
}
_CROPPED_MAX = 0.05  # of a side: models round their sides to multiples of 16 or 32
_UPRIGHT = {None, 1}


class InvalidImage(Exception):
    """The bytes are not one whole, still PNG, JPEG or WebP of at most `pixels_max`. The error quotes none of them."""


class OtherShape(InvalidImage):
    """The image cannot have the requested size without distortion, or without losing more than its margins."""


def fit(content: bytes, size: Size, *, pixels_max: int = PIXELS_MAX) -> Image:
    """The image in these bytes, of exactly `size`; its format is read from the bytes. Takes up to a second: call it in
    a thread.

    Bytes that have that size already are kept unchanged, and not decoded: their structure is whole (`check_whole`), and
    with them stays the metadata that the model wrote, such as marks of origin (C2PA), which some laws require. Any
    other image is cropped in the middle by at most 5 % of one side, scaled, and encoded in its own format with no
    metadata but the colour profile.

    Raises InvalidImage; an image of more than `pixels_max` is not decoded.
    """
    failure: InvalidImage
    try:
        return _fitted(content, size, pixels_max)
    except InvalidImage as fault:
        failure = type(fault)()
    except FAULTS:
        failure = InvalidImage()
    raise failure  # out here, so that the decoder's error, which quotes the bytes, is not its cause


def convert(image: Image, image_format: ImageFormat, compression: int | None = None) -> Image:
    """The image in another format, or unchanged if it has that one. Transparent pixels become white in a JPEG. For
    images from `fit` or the stub; call it in a thread. Raises InvalidImage where the pixels cannot be decoded.

    `compression` is the quality of a JPEG or WebP, 0 to 100, of which 100 gives the largest file: one that was not
    encoded with it is encoded again.
    """
    if image.format == image_format and (image_format == "png" or compression in {None, image.compression}):
        return image
    with suppress(*FAULTS), Pillow.open(BytesIO(image.content), formats=tuple(_FORMATS)) as opened:
        pixels = decode_pixels(opened, image.content)
        plain = flatten(pixels) if image_format == "jpeg" else to_rgb(pixels)
        return Image(encode(plain, image_format, profile_of(opened), _saving(compression)), image_format, compression)
    raise InvalidImage  # out here, so that the decoder's error, which quotes the bytes, is not its cause


def thumbnail(content: bytes, width: int, image_format: ImageFormat) -> Image:
    """The image in these bytes in the given format, `width` pixels wide, or as wide as it is where that is less, and of
    the same shape. Transparent pixels become white in a JPEG. For images that `fit` or the stub returned once; call it
    in a thread.

    Raises InvalidImage where they cannot be decoded.
    """
    with suppress(*FAULTS), Pillow.open(BytesIO(content), formats=tuple(_FORMATS)) as opened:
        width = min(width, opened.width)
        size = width, max(1, round(opened.height * width / opened.width))
        opened.draft(None, (2 * size[0], 2 * size[1]))  # a JPEG is decoded at a fraction of its size
        scaled = resize(opened, content, (0, 0, *opened.size), size)
        plain = flatten(scaled) if image_format == "jpeg" else scaled
        return Image(encode(plain, image_format, profile_of(opened), _SAVING_SMALL), image_format)
    raise InvalidImage  # out here, so that the decoder's error, which quotes the bytes, is not its cause


def _fitted(content: bytes, size: Size, pixels_max: int) -> Image:
    requested = size.width, size.height
    _check_canvas(content, pixels_max)
    with Pillow.open(BytesIO(content), formats=tuple(_FORMATS)) as opened:
        image_format = _check(opened, pixels_max)
        check_whole(content, image_format)
        is_upright = _orientation(opened, content) in _UPRIGHT
        if opened.size == requested and is_upright:
            return Image(content, image_format)
        upright = opened if is_upright else ImageOps.exif_transpose(opened)
        scaled = resize(upright, content, _fitting_box(upright.size, requested), requested)
        return Image(encode(scaled, image_format, profile_of(opened)), image_format)


def _orientation(image: Pillow.Image, content: bytes) -> int | None:
    if image.format == "PNG" and has_late_metadata(content):
        return image.getexif().get(ExifTags.Base.Orientation)  # decodes all that comes before it
    return Pillow.Image.getexif(image).get(ExifTags.Base.Orientation)


def _check(image: Pillow.Image, pixels_max: int) -> ImageFormat:
    image_format = _FORMATS.get(image.format or "")
    if image_format is None or image.width * image.height > pixels_max or getattr(image, "n_frames", 1) > 1:
        raise InvalidImage
    return image_format


def _check_canvas(content: bytes, pixels_max: int) -> None:
    """Refuses a WebP by its header: Pillow's decoder allocates all its pixels before it says how many there are."""
    if content[:4] != b"RIFF":
        return
    kind, data = content[12:16], content[20:30]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", data[6:10]))
    if width * height > pixels_max:
        raise InvalidImage


def _fitting_box(size: tuple[int, int], requested: tuple[int, int]) -> vips.Box:
    ratio = size[0] * requested[1] / (size[1] * requested[0])
    if not 1 - _CROPPED_MAX <= ratio <= 1 / (1 - _CROPPED_MAX):
        raise OtherShape
    width, height = round(size[0] / max(ratio, 1)), round(size[1] * min(ratio, 1))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _saving(compression: int | None) -> Mapping[ImageFormat, Mapping[str, int]]:
    if compression is None:
        return SAVING
    asked = {"quality": compression}
    return {image_format: options | asked for image_format, options in SAVING.items()}
