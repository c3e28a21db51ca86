"""Bytes from outside made into a picture of exactly the asked size, at a bounded cost."""

import struct
import zlib
from io import BytesIO
from typing import Literal

from PIL import ExifTags, Image, ImageOps

from app.providers import Picture, Size

PIXELS_MAX = 2**25
"""Twice the pixels of the largest picture that a model draws today."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_SAVING = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 2},
}
_CROPPED_MAX = 0.05  # of a side: models round their sides to multiples of 16 or 32
_UPRIGHT = {None, 1}
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
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class NotAPicture(Exception):
    """Not one whole, still PNG, JPEG or WebP of a bearable size. Says nothing of what it is instead."""


class OtherShape(NotAPicture):
    """A picture, but none that could have the asked size without being distorted or losing a part that is seen."""


def fit(content: bytes, size: Size, *, pixels_max: int = PIXELS_MAX) -> Picture:
    """The picture in these bytes, of exactly `size`, whatever it was called. Takes up to a second: call it in a thread.

    Bytes that have that size already are kept as they are, once they have been found to decode to the end: with what
    the model wrote beside its pixels, such as the marks of origin (C2PA) that some law wants kept. Any other picture is
    scaled and encoded anew in its own format, without such data but for the colour profile, after a crop in the middle
    of at most 5 % of one side. Raises NotAPicture; nothing of more than `pixels_max` is decoded.
    """
    trouble: NotAPicture
    try:
        return _fitted(content, size, pixels_max)
    except NotAPicture as fault:
        trouble = type(fault)()
    except _FAULTS:
        trouble = NotAPicture()
    raise trouble  # out here, so that the decoder's words, which quote the bytes, are not its cause


def convert(picture: Picture, picture_format: Literal["png", "jpeg", "webp"]) -> Picture:
    """The picture in another format, byte for byte as it is if it has that one. What is seen through becomes white in a
    JPEG, which knows no transparency. For pictures that came from `fit` or were drawn here; call it in a thread.
    """
    kind, media_type = picture_format.upper(), f"image/{picture_format}"
    if media_type == picture.media_type:
        return picture
    with Image.open(BytesIO(picture.content), formats=_FORMATS) as image:
        return Picture(_encoded(_flat(image) if kind == "JPEG" else _plain(image), kind, image), media_type)


def _fitted(content: bytes, size: Size, pixels_max: int) -> Picture:
    asked = size.width, size.height
    _check_canvas(content, pixels_max)
    # For a PNG this reads every chunk and its checksum, which loading the pixels alone does not.
    with Image.open(BytesIO(content), formats=_FORMATS) as unread:
        _check(unread, pixels_max)
        unread.verify()
    with Image.open(BytesIO(content), formats=_FORMATS) as image:
        _check(image, pixels_max)
        kind = image.format or ""
        upright = image.getexif().get(ExifTags.Base.Orientation) in _UPRIGHT
        image.load()
        if image.size == asked and upright:
            return Picture(content, f"image/{kind.lower()}")
        return Picture(_scaled(image, asked, kind), f"image/{kind.lower()}")


def _check(image: Image.Image, pixels_max: int) -> None:
    if image.format not in _FORMATS or image.width * image.height > pixels_max or getattr(image, "n_frames", 1) > 1:
        raise NotAPicture


def _check_canvas(content: bytes, pixels_max: int) -> None:
    """Refuses a WebP by its header: Pillow's decoder takes memory for all its pixels before it tells how many."""
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
        raise NotAPicture


def _scaled(image: Image.Image, asked: tuple[int, int], kind: str) -> bytes:
    upright = ImageOps.exif_transpose(image)
    ratio = upright.width * asked[1] / (upright.height * asked[0])
    if not 1 - _CROPPED_MAX <= ratio <= 1 / (1 - _CROPPED_MAX):
        raise OtherShape
    return _encoded(ImageOps.fit(_plain(upright), asked, Image.Resampling.LANCZOS), kind, image)


def _plain(image: Image.Image) -> Image.Image:
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _flat(image: Image.Image) -> Image.Image:
    plain = _plain(image)
    if plain.mode == "RGB":
        return plain
    ground = Image.new("RGB", plain.size, "white")
    ground.paste(plain, mask=plain.getchannel("A"))
    return ground


def _encoded(image: Image.Image, kind: str, source: Image.Image) -> bytes:
    # A profile describes the colours that the source had: those of a printer or of greys are not what is encoded.
    profile = source.info.get("icc_profile") if source.mode in {"RGB", "RGBA"} else None
    image.info.clear()
    encoded = BytesIO()
    image.save(encoded, kind, icc_profile=profile, **_SAVING[kind])
    return encoded.getvalue()
