"""Takes in the images that callers send, from whatever camera or program."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from math import sqrt
from subprocess import DEVNULL, PIPE, TimeoutExpired

from PIL import Image as Pillow

from app.core.bounds import IMAGE_BYTES_MAX, format_bytes
from app.core.images import ImageFormat
from app.core.processes import start
from app.providers import Size, heif_program
from app.providers.containers import (
    INPUT_PIXELS_MAX,
    INPUT_SIDE_MAX,
    StrippedImage,
    TooManyPixels,
    check_size,
)
from app.providers.containers.gif import strip_gif
from app.providers.containers.heif import is_heif, strip_heif
from app.providers.containers.jpeg import strip_jpeg
from app.providers.containers.png import strip_png
from app.providers.containers.profiles import cleaned_profile
from app.providers.containers.webp import strip_webp
from app.providers.pixels import FAULTS, SAVING, decode_pixels, encode, flatten, resize, to_rgb
from app.providers.structure import PNG_SIGNATURE, BrokenImage, check_whole

_DECODED_LEAVE_AS: Mapping[str, ImageFormat] = {"png": "png", "jpeg": "jpeg", "webp": "jpeg", "gif": "png"}
"""By their format. Where they are transparent, PNG takes the place of JPEG. Large images can be too much for WebP."""
_TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
"""By the orientation."""

_EMPTY = "The image is empty"
_TOO_LARGE = f"The image has more than {format_bytes(IMAGE_BYTES_MAX)}"
_OTHER_TYPE = "The image is no PNG, JPEG, WebP, AVIF, HEIC or GIF"
_ANIMATED = "The image is animated: only its first frame could be taken, with first_frame"
_TOO_MANY_PIXELS = f"The image has more than {INPUT_PIXELS_MAX:,} pixels, or a side of more than {INPUT_SIDE_MAX:,}"
_BROKEN = "The image is damaged, incomplete or of an unusual kind: it cannot be read"

_NOTHING_CHANGES = "The mask lets nothing change: it must be transparent, or white, where the image may change"
_CANNOT_BE_SMALLER = "The image cannot be made small enough for the model"

_HEIF_SECONDS_MAX = 60
_OPAQUE = 255
_KEPT_OF_GREY = [_OPAQUE] * 128 + [0] * 128
"""The opacity of a mask's pixel, by its brightness."""
_SHRUNK, _SIDE_MIN = 0.75, 64
_SAVING_SMALLER: Mapping[ImageFormat, Mapping[str, int]] = {
    "jpeg": {"quality": 85},
    "webp": {"quality": 85, "method": 4},
}


class InvalidInput(Exception):
    """An image that is not taken. Its text is one sentence for the caller, which quotes nothing of the image."""


@dataclass(frozen=True, slots=True)
class TakenIn:
    """A whole, still, upright image, with no metadata but a colour profile that names nothing."""

    content: bytes
    format: ImageFormat
    size: Size


@dataclass(frozen=True, slots=True)
class InputLimits:
    """What a route takes of one image: pixels of its longer side, bytes, and formats."""

    side_max: int
    bytes_max: int
    formats: Collection[ImageFormat]


def take_in(content: bytes, *, first_frame: bool) -> TakenIn:
    """The image in a file as it can be sent on: as PNG, JPEG or WebP, turned upright, without metadata. What the file
    is, its bytes say. Takes up to two seconds: call it in a thread.

    A PNG, JPEG or WebP that is upright, and neither CMYK nor of 16 bits a sample, keeps its pixels as they are encoded,
    and is not decoded: its structure is whole (`check_whole`). Any other is decoded, and encoded as JPEG of quality
    95, or as PNG of 8 bits a sample where it was a PNG or GIF, or is transparent.

    Raises InvalidInput; an animation is refused unless its `first_frame` is wanted.
    """
    if not content:
        raise InvalidInput(_EMPTY)
    if len(content) > IMAGE_BYTES_MAX:
        raise InvalidInput(_TOO_LARGE)
    stripped = _stripped(content)
    if stripped.is_animated and not first_frame:
        raise InvalidInput(_ANIMATED)
    if stripped.format == "heif":
        stripped = _stripped(decode_heif(stripped.content))  # which is looked at as if the caller had sent it
    with suppress(*FAULTS):
        if stripped.plain_format is None or stripped.orientation in _TURNS:
            return _decoded(stripped)
        check_whole(stripped.content, stripped.plain_format)
        return TakenIn(stripped.content, stripped.plain_format, stripped.size)
    raise InvalidInput(_BROKEN)  # out here, so that the decoder's error, which quotes the bytes, is not its cause


def take_in_mask(content: bytes, size: Size) -> TakenIn:
    """A mask for an image of this size, from a file of any format that `take_in` takes: a black PNG in RGBA that is
    transparent where the image may change.

    A mask with transparent pixels says so itself. Of one without, the bright pixels may change.

    Raises InvalidInput, also for another size, and for a mask that lets nothing change. Call it in a thread.
    """
    taken = take_in(content, first_frame=False)
    if taken.size != size:
        raise InvalidInput(f"The mask has {taken.size} pixels, and the first image {size}: they must be equal")
    with suppress(*FAULTS), Pillow.open(BytesIO(taken.content)) as opened:
        image = to_rgb(decode_pixels(opened, taken.content))
        kept = image.getchannel("A") if image.mode == "RGBA" else None
        if kept is None or kept.getextrema() == (_OPAQUE, _OPAQUE):
            kept = image.convert("L").point(_KEPT_OF_GREY)
        if kept.getextrema() == (_OPAQUE, _OPAQUE):
            raise InvalidInput(_NOTHING_CHANGES)
        return _mask_of(kept)
    raise InvalidInput(_BROKEN)


def fit_mask(mask: TakenIn, size: Size) -> TakenIn:
    """A mask from `take_in_mask` for its image at another size, as `bring_below` has brought it to."""
    if mask.size == size:
        return mask
    with Pillow.open(BytesIO(mask.content)) as opened:
        return _mask_of(opened.getchannel("A").resize(size, Pillow.Resampling.NEAREST))


def bring_below(taken: TakenIn, limits: InputLimits) -> TakenIn:
    """The same image within the limits of a route: unchanged where it is, otherwise scaled down to the longest side,
    encoded in a format that the route takes, and made smaller until its bytes are few enough. Transparency is kept
    where one of the formats has it.

    Raises InvalidInput where that leaves nothing to be seen. Takes up to two seconds: call it in a thread.
    """
    if max(taken.size) <= limits.side_max and len(taken.content) <= limits.bytes_max and taken.format in limits.formats:
        return taken
    with suppress(*FAULTS), Pillow.open(BytesIO(taken.content), formats=[taken.format.upper()]) as opened:
        return _brought_below(opened, taken, limits)
    raise InvalidInput(_BROKEN)


def decode_heif(content: bytes) -> bytes:
    """A HEIC or AVIF file from `strip_heif` as JPEG or PNG, by a process of its own (see `heif_program`). Raises
    InvalidInput.
    """
    converted = b""
    with start([sys.executable, "-I", heif_program.__file__], stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as program:
        with suppress(TimeoutExpired):
            converted, _ = program.communicate(content, timeout=_HEIF_SECONDS_MAX)
        program.kill()  # where it has not ended
    if program.returncode:
        raise InvalidInput(_BROKEN)
    return converted


def _stripped(content: bytes) -> StrippedImage:
    strip = _container_of(content)
    if strip is None:
        raise InvalidInput(_OTHER_TYPE)
    sentence = _BROKEN
    try:
        stripped = strip(content)
        check_size(*stripped.size)
    except TooManyPixels:
        sentence = _TOO_MANY_PIXELS
    except FAULTS:
        pass
    else:
        return stripped
    raise InvalidInput(sentence)


def _container_of(content: bytes) -> Callable[[bytes], StrippedImage] | None:
    if content.startswith(PNG_SIGNATURE):
        return strip_png
    if content.startswith(b"\xff\xd8\xff"):
        return strip_jpeg
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return strip_webp
    if content.startswith((b"GIF87a", b"GIF89a")):
        return strip_gif
    return strip_heif if is_heif(content) else None


def _decoded(stripped: StrippedImage) -> TakenIn:
    if stripped.format in {"png", "jpeg"}:
        check_whole(stripped.content, stripped.format)
    with Pillow.open(BytesIO(stripped.content), formats=[stripped.format.upper()]) as opened:
        if opened.size != stripped.size:
            raise BrokenImage
        profile = cleaned_profile(opened.info.get("icc_profile", b""), "RGB ")
        image = to_rgb(decode_pixels(opened, stripped.content))
        image.load()
    if stripped.orientation in _TURNS:
        image = image.transpose(_TURNS[stripped.orientation])
    image_format = "png" if image.mode == "RGBA" else _DECODED_LEAVE_AS[stripped.format]
    return TakenIn(encode(image, image_format, profile), image_format, Size(*image.size))


def _mask_of(kept: Pillow.Image) -> TakenIn:
    """Of the opacity of each pixel."""
    mask = Pillow.new("RGBA", kept.size)
    mask.putalpha(kept)
    return TakenIn(encode(mask, "png", None), "png", Size(*kept.size))


def _brought_below(opened: Pillow.Image, taken: TakenIn, limits: InputLimits) -> TakenIn:
    profile, longer_side = cleaned_profile(opened.info.get("icc_profile", b""), "RGB "), max(taken.size)
    scale = min(1.0, limits.side_max / longer_side)
    while True:
        size = Size(*(max(1, round(side * scale)) for side in taken.size))
        opened.draft(None, (2 * size.width, 2 * size.height))  # a JPEG is decoded at a fraction of its size
        image = resize(opened, taken.content, (0, 0, *opened.size), size)
        content = b""
        for image_format, saving in _encodings(image, taken.format, limits.formats):
            pixels = flatten(image) if image_format == "jpeg" else image
            with suppress(ValueError):  # WebP has a bound of its own on what it can hold
                content = encode(pixels, image_format, profile, saving)
                if len(content) <= limits.bytes_max:
                    return TakenIn(content, image_format, size)
        scale *= min(_SHRUNK, sqrt(limits.bytes_max / max(1, len(content))))
        if longer_side * scale < _SIDE_MIN:
            raise InvalidInput(_CANNOT_BE_SMALLER)


def _encodings(
    image: Pillow.Image, own: ImageFormat, formats: Collection[ImageFormat]
) -> Iterator[tuple[ImageFormat, Mapping[ImageFormat, Mapping[str, int]]]]:
    """The formats to try before pixels are given up: the image's own or the nearest one, then the smallest."""
    is_transparent = image.mode == "RGBA"
    nearest: Sequence[ImageFormat] = ("png", "webp", "jpeg") if is_transparent else ("jpeg", "webp", "png")
    smallest: Sequence[ImageFormat] = ("webp",) if is_transparent else ("jpeg", "webp")
    yield next(each for each in (own, *nearest) if each in formats), SAVING
    yield from ((each, _SAVING_SMALLER) for each in smallest if each in formats)
