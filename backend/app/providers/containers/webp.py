"""WebP files: only the pixels, their transparency and their colour profile are kept."""

import struct
from collections.abc import Mapping

from app.core.images import ImageFormat
from app.providers import Size
from app.providers.containers import StrippedImage, bounded
from app.providers.containers.exif import orientation_of
from app.providers.containers.profiles import cleaned_profile
from app.providers.structure import BrokenImage, chunks_of_webp, size_of_vp8, size_of_vp8l

_EXTENDED, _ANIMATION, _FRAME = b"VP8X", b"ANIM", b"ANMF"
_HAS_PROFILE, _HAS_ALPHA, _IS_ANIMATED = 0x20, 0x10, 0x02
_EXIF = b"Exif\0\0"
_KEPT = (_ANIMATION, _FRAME, b"ALPH", b"VP8 ", b"VP8L")


def strip_webp(content: bytes) -> StrippedImage:
    """The file without EXIF, XMP, unknown chunks, further frames, and what stands behind its end.

    Raises BrokenImage.
    """
    end = 8 + int.from_bytes(content[4:8], "little")
    if end > len(content):
        raise BrokenImage
    chunks, is_animated = dict[bytes, bytes](), False
    for name, data in bounded(chunks_of_webp(content, end)):
        is_animated = is_animated or name in {_ANIMATION, _FRAME}
        if name in chunks and name in {b"VP8 ", b"VP8L"}:
            raise BrokenImage
        chunks.setdefault(name, data)
    stripped = _written(chunks)
    orientation = orientation_of(chunks.get(b"EXIF", b"").removeprefix(_EXIF))
    plain_format: ImageFormat | None = None if is_animated else "webp"
    return StrippedImage(stripped, "webp", _size(chunks), orientation, is_animated, plain_format)


def _size(chunks: Mapping[bytes, bytes]) -> Size:
    if _EXTENDED in chunks:
        return Size(*(int.from_bytes(chunks[_EXTENDED][at : at + 3], "little") + 1 for at in (4, 7)))
    return Size(*(size_of_vp8(chunks[b"VP8 "]) if b"VP8 " in chunks else size_of_vp8l(chunks[b"VP8L"])))


def _written(chunks: Mapping[bytes, bytes]) -> bytes:
    kept = [(name, chunks[name]) for name in _KEPT if name in chunks]
    if _EXTENDED in chunks:
        head = chunks[_EXTENDED]
        profile = cleaned_profile(chunks.get(b"ICCP", b""), "RGB ")
        flags = head[0] & (_HAS_ALPHA | _IS_ANIMATED) | (_HAS_PROFILE if profile else 0)
        extended = [(_EXTENDED, struct.pack("<I", flags) + head[4:10])]
        kept = [*extended, *([(b"ICCP", profile)] if profile else []), *kept]
    body = b"WEBP" + b"".join(part for name, data in kept for part in _chunk(name, data))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(name: bytes, data: bytes) -> tuple[bytes, ...]:
    return name, struct.pack("<I", len(data)), data, bytes(len(data) % 2)
