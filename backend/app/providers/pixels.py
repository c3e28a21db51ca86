"""The pixels of an image: decoded, scaled, turned into 8-bit RGB or RGBA, and encoded."""

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO

from PIL import Image as Pillow
from PIL import PngImagePlugin

from app.core.images import ImageFormat
from app.providers import vips
from app.providers.containers.profiles import PROFILE_BYTES_MAX
from app.providers.png import encode_png

PngImagePlugin.MAX_TEXT_CHUNK = PROFILE_BYTES_MAX  # by itself, Pillow opens no PNG with a profile of more than 1 MiB

SAVING: Mapping[ImageFormat, dict[str, int]] = {
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"quality": 95, "method": 0},
}
_PNG_HEAD, _PNG_COLOURS = struct.Struct(">IIBBBBB"), {"RGB": 2, "RGBA": 6}
FAULTS = (
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
"""What Pillow and libvips raise for bytes that they cannot decode. Many of these errors quote the bytes."""


def decode_pixels(image: Pillow.Image, content: bytes) -> Pillow.Image:
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


def resize(image: Pillow.Image, content: bytes, box: vips.Box, size: tuple[int, int]) -> Pillow.Image:
    """`box` of the image at this size, in RGB or RGBA: by libvips, which is faster, where that is smaller."""
    width, height = box[2] - box[0], box[3] - box[1]
    is_smaller = size[0] <= width and size[1] <= height and size != (width, height)
    if is_smaller and image.mode == "RGB" and _is_plain_png(image, content):
        return vips.decode_png(content, image.mode, box, size)
    pixels = to_rgb(decode_pixels(image, content))
    if not is_smaller:
        return pixels.resize(size, Pillow.Resampling.LANCZOS, box=box)
    mode, pixels = pixels.mode, pixels.crop(box)
    if mode == "RGBA":
        pixels = pixels.convert("RGBa")  # weighted by their alpha: transparent pixels lend no colour
    return vips.shrink(pixels, size).convert(mode)


def to_rgb(image: Pillow.Image) -> Pillow.Image:
    """The pixels with 8 bits a sample: in RGBA where some may be transparent, and in RGB otherwise."""
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


def flatten(image: Pillow.Image) -> Pillow.Image:
    """The pixels in RGB, on white where they are transparent."""
    plain = to_rgb(image)
    if plain.mode == "RGB":
        return plain
    ground = Pillow.new("RGB", plain.size, "white")
    ground.paste(plain, mask=plain.getchannel("A"))
    return ground


def profile_of(source: Pillow.Image) -> bytes | None:
    """The colour profile for the pixels of this image in RGB: that of a CMYK or grey image does not describe them."""
    return source.info.get("icc_profile") if source.mode in {"RGB", "RGBA"} else None


def encode(
    image: Pillow.Image,
    image_format: ImageFormat,
    profile: bytes | None,
    saving: Mapping[ImageFormat, Mapping[str, int]] = SAVING,
) -> bytes:
    """An image in RGB or RGBA, encoded with this colour profile, and no other metadata."""
    image.info.clear()
    options = saving.get(image_format)
    if options is None:
        return encode_png(image, profile)
    encoded = BytesIO()
    image.save(encoded, image_format, icc_profile=profile, **options)
    return encoded.getvalue()
