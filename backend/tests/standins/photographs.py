"""Images as large as those that models draw, and as hard to compress as photographs."""

import struct
from functools import cache
from hashlib import shake_256
from io import BytesIO

from PIL import Image, ImageDraw

_SHAPES, _GRAIN = 150, 0.014
_SHAPE = struct.Struct(">4H3B")


@cache
def photograph(number: int, *, side: int = 1024) -> bytes:
    """A PNG of a megabyte: edges at every scale, and grain.

    As WebP, 256 pixels wide, it has 10 KB, as photographs have.
    """
    image = Image.new("RGB", (side, side))
    pencil = ImageDraw.Draw(image)
    chosen = shake_256(b"shapes %d" % number).digest(_SHAPES * _SHAPE.size)
    for shape, (*values, red, green, blue) in enumerate(_SHAPE.iter_unpack(chosen)):
        width, height, left, top = (value / 2**16 for value in values)
        width, height = (4 + each * side / (1 + shape // 8) for each in (width, height))
        left, top = left * (side + width) - width, top * (side + height) - height
        pencil.ellipse((left, top, left + width, top + height), fill=(red, green, blue))
    grain = Image.frombytes("RGB", (side, side), shake_256(b"grain %d" % number).digest(3 * side * side))
    encoded = BytesIO()
    Image.blend(image, grain, _GRAIN).save(encoded, "PNG")
    return encoded.getvalue()
