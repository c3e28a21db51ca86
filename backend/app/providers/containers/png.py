"""PNG files: chunks that neither the pixels nor their colours need are left out."""

import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress

from app.core.images import ImageFormat
from app.providers import Size
from app.providers.containers import StrippedImage, bounded
from app.providers.containers.exif import orientation_of
from app.providers.containers.profiles import PROFILE_BYTES_MAX, ColourSpace, cleaned_profile
from app.providers.png import profile_chunk
from app.providers.structure import PNG_SIGNATURE, chunks_of_png

_LENGTHS: Mapping[bytes, int] = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
"""The chunks about colours, and the bytes of each: a longer one holds something else."""
_TRANSPARENCY_MAX = 256
_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_IHDR, _GREY, _BITS_MAX = struct.Struct(">IIBB"), {0, 4}, 8


def strip_png(content: bytes) -> StrippedImage:
    """The file without text, times, EXIF, further images, and what stands behind its end.

    Checksums are not compared. Unknown chunks stay where they claim that no decoder can do without them. Raises
    BrokenImage.
    """
    kept, names, orientation = [memoryview(PNG_SIGNATURE)], set[bytes](), 1
    width, height, bits, colours = _IHDR.unpack_from(content, 16)
    for name, data, chunk in bounded(chunks_of_png(content, are_checked=True)):
        if name == b"eXIf" and name not in names:
            orientation = orientation_of(bytes(data))
        elif name == b"iCCP" and name not in names:
            kept.append(memoryview(_cleaned_profile_chunk(bytes(data), "GRAY" if colours in _GREY else "RGB ")))
        elif _is_kept(name, len(data), names):
            kept.append(chunk)
        names.add(name)
    is_animated = not _ANIMATION.isdisjoint(names)
    stripped = b"".join(kept)
    plain_format: ImageFormat | None = "png" if bits <= _BITS_MAX else None
    return StrippedImage(stripped, "png", Size(width, height), orientation, is_animated, plain_format)


def _is_kept(name: bytes, length: int, names: set[bytes]) -> bool:
    if name[:1].isupper():
        return True
    if name in names or b"IDAT" in names:
        return False
    return length <= _TRANSPARENCY_MAX if name == b"tRNS" else _LENGTHS.get(name) == length


def _cleaned_profile_chunk(data: bytes, space: ColourSpace) -> bytes:
    """The chunk without the profile's name and text, which a person may have given it; or nothing."""
    _, _, compressed = data.partition(b"\0")
    inflating = zlib.decompressobj()
    with suppress(zlib.error):
        profile = inflating.decompress(compressed[1:], PROFILE_BYTES_MAX)
        cleaned = cleaned_profile(profile, space) if inflating.eof else None
        return profile_chunk(cleaned) if cleaned else b""
    return b""
