"""Whether the bytes of an image are all there, by the structure of its format: no pixel is decoded.

Only a decoder would find a damaged deflate stream under the right checksums of a PNG, and damaged pixels of a JPEG or a
WebP, which have no checksums.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from app.core.images import ImageFormat

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">IIBBBBB")
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""The bits that a sample may have, for each colour type of a PNG."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
_INFLATED_MAX = 1032
"""The most bytes that one byte of a deflate stream becomes."""
_EXAMINED_BYTES = 512
_LOCKED_BYTES_MAX = 5 * 1024
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_METADATA = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}
_NAME = re.compile(rb"[A-Za-z]{4}")

_JPEG_START = b"\xff\xd8"
_EOI, SOS, _DQT = 0xD9, 0xDA, 0xDB
SOF_MARKERS = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive: what decoders read."""
_OTHER_SOF = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # restart markers, which stand in scans, and another beginning
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SOF_HEAD, _COMPONENT_BYTES = struct.Struct(">BHHB"), 3
_SAMPLE_BITS, _COMPONENTS, _LENGTH_BYTES = 8, {1, 3, 4}, 2

_RIFF_HEAD, _PIXEL_CHUNKS, _ANIMATED = 8, {b"VP8 ", b"VP8L"}, 0x02
_VP8_START, _VP8_HEAD, _SHOWN_KEY_FRAME = b"\x9d\x01\x2a", 10, 0x10
_VP8L_START, _VP8L_HEAD = 0x2F, 5


class BrokenImage(ValueError):
    """The bytes are not one whole, still image."""


def check_whole(content: bytes, image_format: ImageFormat) -> None:
    """Raises BrokenImage where something is missing, out of order or against a checksum, and for an animation.

    Bytes behind the end of the image are not looked at.
    """
    check = {"png": _check_png, "jpeg": _check_jpeg, "webp": _check_webp}[image_format]
    try:
        check(content)
    except (IndexError, struct.error):  # the bytes end within a number
        raise BrokenImage from None


def has_late_metadata(png: bytes) -> bool:
    """Whether a whole PNG has metadata, its orientation for example, behind its pixels."""
    names = [name for name, _, _ in chunks_of_png(png, are_checked=True)]
    return not _METADATA.isdisjoint(names[names.index(b"IDAT") :])


def _require(holds: object) -> None:
    if not holds:
        raise BrokenImage


def _check_png(content: bytes) -> None:
    _require(content.startswith(PNG_SIGNATURE))
    chunks = [(name, data) for name, data, _ in chunks_of_png(content)]
    names, pixels = [name for name, _ in chunks], [data for name, data in chunks if name == b"IDAT"]
    for name in names:
        _require(_NAME.fullmatch(name) and (name[:1].islower() or name in _CRITICAL) and name not in _ANIMATION)
    first = names.index(b"IDAT") if pixels else 0
    _require(first and names[first : first + len(pixels)] == [b"IDAT"] * len(pixels))
    _require(names[0] == b"IHDR" and names.count(b"IHDR") == 1 and b"PLTE" not in names[first:])
    _check_png_header(bytes(chunks[0][1]), palettes=names.count(b"PLTE"), deflated_bytes=sum(map(len, pixels)))
    _check_deflated(b"".join(data[:_EXAMINED_BYTES] for data in pixels[:_EXAMINED_BYTES]))


def chunks_of_png(content: bytes, *, are_checked: bool = False) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Name, data and all bytes of each chunk up to IEND. Raises BrokenImage for a wrong checksum, unless all are
    checked.
    """
    view, at, name, length = memoryview(content), len(PNG_SIGNATURE), b"", 0
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        _require(are_checked or struct.unpack_from(">I", content, end)[0] == _crc32(view[at + 4 : end]))
        yield name, view[at + 8 : end], view[at : end + 4]
        at = end + 4
    _require(length == 0)


def _crc32(data: memoryview) -> int:
    """In pieces for which zlib keeps the interpreter's lock: to get it back from a busy event loop takes longer than
    the checksum of a whole chunk.
    """
    checksum = 0
    for at in range(0, len(data), _LOCKED_BYTES_MAX):
        checksum = zlib.crc32(data[at : at + _LOCKED_BYTES_MAX], checksum)
    return checksum


def _check_png_header(header: bytes, *, palettes: int, deflated_bytes: int) -> None:
    width, height, bits, colours, compression, filters, interlace = _IHDR.unpack(header)
    _require(width and height and bits in _DEPTHS.get(colours, ()))
    _require((compression, filters) == (0, 0) and interlace in {0, 1})
    _require(palettes == 1 if colours == _PALETTE else palettes in {0, 1})
    line = 1 + (width * bits * _SAMPLES[colours] + 7) // 8
    _require(deflated_bytes * _INFLATED_MAX >= height * line)


def _check_deflated(start: bytes) -> None:
    """The first byte is the filter of the first line."""
    try:
        inflated = zlib.decompressobj().decompress(start[:_EXAMINED_BYTES], 1)
    except zlib.error:
        raise BrokenImage from None
    _require(inflated in {b"\0", b"\1", b"\2", b"\3", b"\4"})


def _check_jpeg(content: bytes) -> None:
    _require(content.startswith(_JPEG_START))
    segments = [(marker, data) for marker, data, _ in segments_of_jpeg(content)]
    markers = [marker for marker, _ in segments]
    [frame, *others] = [data for marker, data in segments if marker in SOF_MARKERS] or [b""]
    _require(frame and not others and _OTHER_SOF.isdisjoint(markers))
    bits, height, width, components = _SOF_HEAD.unpack_from(frame)
    _require(bits == _SAMPLE_BITS and width and height and components in _COMPONENTS)
    _require(len(frame) == _SOF_HEAD.size + _COMPONENT_BYTES * components)
    before_scan = markers[: markers.index(SOS)] if SOS in markers else []
    _require(_DQT in before_scan and not SOF_MARKERS.isdisjoint(before_scan))


def segments_of_jpeg(content: bytes) -> Iterator[tuple[int, bytes, memoryview]]:
    """Marker, data and all bytes of each segment behind SOI, up to EOI. Those of SOS have the scan with them."""
    view, at = memoryview(content), len(_JPEG_START)
    while True:
        found = _MARKER.match(content, at)
        if found is None or (marker := found[1][0]) in _WITHOUT_LENGTH:
            raise BrokenImage
        if marker == _EOI:
            return
        (length,) = struct.unpack_from(">H", content, found.end())
        start, end = found.end(), found.end() + length
        _require(length >= _LENGTH_BYTES and end <= len(content))
        at = end
        if marker == SOS:
            behind = _AFTER_SCAN.search(content, end)
            if behind is None or behind.start() == end:
                raise BrokenImage  # the scan has no end, or nothing in it
            at = behind.start()
        yield marker, content[start + _LENGTH_BYTES : end], view[start - 2 : at]


def _check_webp(content: bytes) -> None:
    container, length, form = struct.unpack_from("<4sI4s", content)
    end = _RIFF_HEAD + length
    _require((container, form) == (b"RIFF", b"WEBP") and end <= len(content))
    chunks = list(chunks_of_webp(content, end))
    [(name, pixels), *others] = [each for each in chunks if each[0] in _PIXEL_CHUNKS] or [(b"", b"")]
    first, canvas = chunks[0]
    _require(not others and (first == b"VP8X" or first in _PIXEL_CHUNKS))
    size = size_of_vp8(pixels) if name == b"VP8 " else size_of_vp8l(pixels)
    if first == b"VP8X":
        flags, width, height = canvas[0], *(int.from_bytes(canvas[at : at + 3], "little") + 1 for at in (4, 7))
        names = {each for each, _ in chunks}
        _require(not flags & _ANIMATED and names.isdisjoint({b"ANIM", b"ANMF"}) and size == (width, height))


def chunks_of_webp(content: bytes, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Name and data of each chunk; each has an even number of bytes, the last one padded."""
    at = _RIFF_HEAD + 4
    while at < end:
        name, length = struct.unpack_from("<4sI", content, at)
        begin, at = at + 8, at + 8 + length + length % 2
        _require(at <= end)
        yield name, content[begin : begin + length]


def size_of_vp8(frame: bytes) -> tuple[int, int]:
    """Of a key frame that is to be shown."""
    tag = int.from_bytes(frame[:3], "little")
    width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", frame, 6))
    is_shown_key_frame = tag & 0x11 == _SHOWN_KEY_FRAME
    _require(is_shown_key_frame and frame[3:6] == _VP8_START and _VP8_HEAD + (tag >> 5) <= len(frame))
    return width, height


def size_of_vp8l(frame: bytes) -> tuple[int, int]:
    bits = int.from_bytes(frame[1:5], "little")
    _require(frame[0] == _VP8L_START and bits >> 29 == 0 and len(frame) > _VP8L_HEAD)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
