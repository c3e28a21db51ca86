"""Decodes a provider's image at a bounded cost, and fits it to exactly the requested size."""

import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO

from PIL import ExifTags, ImageOps
from PIL import Image as Pillow

from app.core.images import IMAGE_FORMATS, ImageFormat
from app.providers import Image, Size, vips
from app.providers.png import encode_png
from app.providers.structure import check_whole, has_late_metadata

PIXELS_MAX = 2**25
"""Twice the pixels of the largest image that a model draws today."""

_FORMATS = {each.upper(): each for each in IMAGE_FORMATS}
"""Pillow's name of each format."""
_SAVING: Mapping[ImageFormat, dict[str, int]] = {
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"quality": 95, "method": 0},
}
_SAVING_SMALL: Mapping[ImageFormat, Mapping[str, int]] = {
    "png": {"compress_level": 6},
    "jpeg": {"quality": 80},
    "webp": {"quality": 70, "method": 4},
}
_CROPPED_MAX = 0.05  # of a side: models round their sides to multiples of 16 or 32
_UPRIGHT = {None, 1}
_PNG_HEAD, _PNG_COLOURS = struct.Struct(">IIBBBBB"), {"RGB": 2, "RGBA": 6}
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Pillow.DecompressionBombError,
    Pillow.DecompressionBombWarning,
)


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
    except _FAULTS:
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
    with suppress(*_FAULTS), Pillow.open(BytesIO(image.content), formats=tuple(_FORMATS)) as opened:
        pixels = _decoded(opened, image.content)
        plain = _flat(pixels) if image_format == "jpeg" else _plain(pixels)
        return Image(_encoded(plain, image_format, opened, _saving(compression)), image_format, compression)
    raise InvalidImage  # out here, so that the decoder's error, which quotes the bytes, is not its cause


def thumbnail(content: bytes, width: int, image_format: ImageFormat) -> Image:
    """The image in these bytes in the given format, `width` pixels wide, or as wide as it is where that is less, and of
    the same shape. Transparent pixels become white in a JPEG. For images that `fit` or the stub returned once; call it
    in a thread.

    Raises InvalidImage where they cannot be decoded.
    """
    with suppress(*_FAULTS), Pillow.open(BytesIO(content), formats=tuple(_FORMATS)) as opened:
        width = min(width, opened.width)
        size = width, max(1, round(opened.height * width / opened.width))
        opened.draft(None, (2 * size[0], 2 * size[1]))  # a JPEG is decoded at a fraction of its size
        scaled = _resized(opened, content, (0, 0, *opened.size), size)
        plain = _flat(scaled) if image_format == "jpeg" else scaled
        return Image(_encoded(plain, image_format, opened, _SAVING_SMALL), image_format)
    raise InvalidImage  # out here, so that the decoder's error, which quotes the bytes, is not its cause


def rgba(content: bytes) -> Pillow.Image:
    """The pixels of an image that was taken in, in RGBA; call it in a thread. Raises InvalidImage where they cannot be
    decoded.
    """
    with suppress(*_FAULTS), Pillow.open(BytesIO(content), formats=tuple(_FORMATS)) as opened:
        return _plain(_decoded(opened, content)).convert("RGBA")
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
        scaled = _resized(upright, content, _fitting_box(upright.size, requested), requested)
        return Image(_encoded(scaled, image_format, opened), image_format)


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


def _decoded(image: Pillow.Image, content: bytes) -> Pillow.Image:
    """The image: decoded by libvips, which is faster, where it can be."""
    if _is_plain_png(image, content):
        return vips.decode_png(content, image.mode, (0, 0, *image.size), image.size)
    return image


def _is_plain_png(image: Pillow.Image, content: bytes) -> bool:
    """Whether an image that was opened, and not changed since, is a PNG of 8 bits a sample, without a second pass and
    without one colour that stands for transparency.
    """
    head = _PNG_HEAD.pack(*image.size, 8, _PNG_COLOURS.get(image.mode, 0), 0, 0, 0)
    return image.format == "PNG" and content[16:29] == head and "transparency" not in image.info


def _fitting_box(size: tuple[int, int], requested: tuple[int, int]) -> vips.Box:
    ratio = size[0] * requested[1] / (size[1] * requested[0])
    if not 1 - _CROPPED_MAX <= ratio <= 1 / (1 - _CROPPED_MAX):
        raise OtherShape
    width, height = round(size[0] / max(ratio, 1)), round(size[1] * min(ratio, 1))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _resized(image: Pillow.Image, content: bytes, box: vips.Box, size: tuple[int, int]) -> Pillow.Image:
    """`box` of the image at this size, in RGB or RGBA: by libvips, which is faster, where that is smaller."""
    width, height = box[2] - box[0], box[3] - box[1]
    is_smaller = size[0] <= width and size[1] <= height and size != (width, height)
    if is_smaller and image.mode == "RGB" and _is_plain_png(image, content):
        return vips.decode_png(content, image.mode, box, size)
    pixels = _plain(_decoded(image, content))
    if not is_smaller:
        return pixels.resize(size, Pillow.Resampling.LANCZOS, box=box)
    mode, pixels = pixels.mode, pixels.crop(box)
    if mode == "RGBA":
        pixels = pixels.convert("RGBa")  # weighted by their alpha: transparent pixels lend no colour
    return vips.shrink(pixels, size).convert(mode)


def _plain(image: Pillow.Image) -> Pillow.Image:
    plain = _of_eight_bits(image)
    mode = "RGBA" if plain.has_transparency_data else "RGB"
    return plain if plain.mode == mode else plain.convert(mode)


def _of_eight_bits(image: Pillow.Image) -> Pillow.Image:
    """A grey image of 16 bits by the upper eight of each sample: Pillow would cut all above 255 to white."""
    if not image.mode.startswith("I;16"):
        return image
    upper = Pillow.frombytes("L", image.size, image.tobytes("raw", "I;16B")[::2])
    if "transparency" in image.info:
        upper.info["transparency"] = image.info["transparency"] >> 8
    return upper


def _flat(image: Pillow.Image) -> Pillow.Image:
    plain = _plain(image)
    if plain.mode == "RGB":
        return plain
    ground = Pillow.new("RGB", plain.size, "white")
    ground.paste(plain, mask=plain.getchannel("A"))
    return ground


def _saving(compression: int | None) -> Mapping[ImageFormat, Mapping[str, int]]:
    if compression is None:
        return _SAVING
    asked = {"quality": compression}
    return {image_format: options | asked for image_format, options in _SAVING.items()}


def _encoded(
    image: Pillow.Image,
    image_format: ImageFormat,
    source: Pillow.Image,
    saving: Mapping[ImageFormat, Mapping[str, int]] = _SAVING,
) -> bytes:
    # A profile describes the source's colours: that of a CMYK or grey source does not describe the RGB encoded here.
    profile = source.info.get("icc_profile") if source.mode in {"RGB", "RGBA"} else None
    image.info.clear()
    options = saving.get(image_format)
    if options is None:
        return encode_png(image, profile)
    encoded = BytesIO()
    image.save(encoded, image_format, icc_profile=profile, **options)
    return encoded.getvalue()
