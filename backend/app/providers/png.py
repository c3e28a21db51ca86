"""PNGs written in half of Pillow's time, which goes into the search for the best filter of each row."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image as Pillow
from PIL import ImageChops

from app.providers.structure import PNG_SIGNATURE

_UP = b"\2"
"""The filter by which a row is stored as its difference from the row above."""
_COLOURS = {"RGB": 2, "RGBA": 6}
_ROWS, _MEMORY = 64, 9


def encode_png(image: Pillow.Image, icc_profile: bytes | None) -> bytes:
    """An image in RGB or RGBA as a PNG with this colour profile, and no other metadata.

    Every row has the filter Up, and runs are all that is compressed: a photograph has 5 % more bytes than with the best
    filters, and a drawing fewer.
    """
    deflate = zlib.compressobj(memLevel=_MEMORY, strategy=zlib.Z_RLE)
    pixels = b"".join([*map(deflate.compress, _filtered_rows(image)), deflate.flush()])
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", *image.size, 8, _COLOURS[image.mode], 0, 0, 0))
    profile = profile_chunk(icc_profile) if icc_profile else b""
    return b"".join((PNG_SIGNATURE, head, profile, _chunk(b"IDAT", pixels), _chunk(b"IEND", b"")))


def profile_chunk(icc_profile: bytes) -> bytes:
    """The chunk of a PNG that holds a colour profile."""
    return _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))


def _filtered_rows(image: Pillow.Image) -> Iterator[bytes]:
    """The rows as they are compressed, some at a time: an image has them in memory once."""
    width, height = image.size
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        above = image.crop((0, top - 1, width, bottom - 1))  # the row above the first is zero
        differences = ImageChops.subtract_modulo(image.crop((0, top, width, bottom)), above).tobytes()
        row = len(differences) // (bottom - top)
        yield b"".join(_UP + differences[at : at + row] for at in range(0, len(differences), row))


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(data)), name, data, struct.pack(">I", checksum)))
