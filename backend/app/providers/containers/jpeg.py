"""JPEG files: segments that neither the pixels nor their colours need are left out."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from app.core.images import ImageFormat
from app.providers import Size
from app.providers.containers import StrippedImage, bounded
from app.providers.containers.exif import orientation_of
from app.providers.containers.profiles import ColourSpace, cleaned_profile
from app.providers.structure import SOF_MARKERS, SOS, BrokenImage, segments_of_jpeg

_START, _END = b"\xff\xd8", b"\xff\xd9"
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_METADATA = {*range(0xE0, 0xFF)}
"""APP0 to APP15, extensions, the comment."""
_JFIF, _EXIF, _PROFILE, _ADOBE = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"Adobe"
_PLAIN_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
"""Version 1.1, square pixels, no thumbnail."""
_ADOBE_BYTES = 12
"""The last of them says whether the colours are YCbCr."""
_PROFILE_PART_MAX = 65_519
_FRAME = struct.Struct(">BHHB")
_SPACES: Mapping[int, ColourSpace] = {1: "GRAY", 3: "RGB "}
"""By the number of components; those of CMYK are decoded."""
_SCANS_MAX = 20
"""Each costs a decoder as much as an image. Encoders make 10, or 18 with four components."""

Metadata = Sequence[tuple[int, bytes]]
"""Marker and data of each segment that is not of the pixels."""


def strip_jpeg(content: bytes) -> StrippedImage:
    """The file without EXIF, XMP, IPTC, comments, thumbnails, further images, and what stands behind its end.

    Of APP0 and APP14 is kept what says how colours are stored. Raises BrokenImage.
    """
    segments = list(bounded(segments_of_jpeg(content)))
    frames = [data for marker, data, _ in segments if marker in SOF_MARKERS]
    if not frames or [marker for marker, _, _ in segments].count(SOS) > _SCANS_MAX:
        raise BrokenImage
    _, height, width, components = _FRAME.unpack_from(frames[0])
    metadata = [(marker, data) for marker, data, _ in segments if marker in _METADATA]
    pixels = (segment for marker, _, segment in segments if marker not in _METADATA)
    stripped = b"".join((_START, *_kept(metadata, _SPACES.get(components)), *pixels, _END))
    plain_format: ImageFormat | None = "jpeg" if components in _SPACES else None
    return StrippedImage(stripped, "jpeg", Size(width, height), _orientation(metadata), plain_format=plain_format)


def _orientation(metadata: Metadata) -> int:
    exif = (data[len(_EXIF) :] for marker, data in metadata if marker == _APP1 and data.startswith(_EXIF))
    return orientation_of(next(exif, b""))


def _kept(metadata: Metadata, space: ColourSpace | None) -> Iterator[bytes]:
    if any(marker == _APP0 and data.startswith(_JFIF) for marker, data in metadata):
        yield _segment(_APP0, _PLAIN_JFIF)
    adobe = (data for marker, data in metadata if marker == _APP14 and data.startswith(_ADOBE))
    yield from (_segment(_APP14, data[:_ADOBE_BYTES]) for data in islice(adobe, 1) if len(data) >= _ADOBE_BYTES)
    parts = sorted(data[len(_PROFILE) :] for marker, data in metadata if marker == _APP2 and data.startswith(_PROFILE))
    profile = cleaned_profile(b"".join(part[2:] for part in parts), space) if space and parts else None
    yield from _profile_segments(profile or b"")


def _profile_segments(profile: bytes) -> Iterator[bytes]:
    starts = range(0, len(profile), _PROFILE_PART_MAX)
    for number, start in enumerate(starts, 1):
        part = profile[start : start + _PROFILE_PART_MAX]
        yield _segment(_APP2, _PROFILE + bytes((number, len(starts))) + part)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
