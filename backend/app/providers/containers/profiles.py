"""Colour profiles (ICC) without what they say about people and machines.

Descriptions hold names of displays and their owners, and `meta` of macOS serial numbers. Only the tags by which colours
are computed are kept.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Literal

ColourSpace = Literal["RGB ", "GRAY"]

PROFILE_BYTES_MAX = 2**22
"""Of a profile that is kept."""

_HEAD_BYTES, _TAGS_MAX = 128, 100
_TAG = struct.Struct(">4sII")
_KEPT_HEAD = (slice(8, 24), slice(36, 40), slice(64, 80))
"""Version, class, colour spaces; signature; intent and illuminant. The rest names makers and times."""
_CURVES = {f"{colour}TRC".encode() for colour in "rgbk"}
_KEPT_TAGS = {
    *(b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt", b"bkpt", b"chad", b"cicp", b"gamt", *_CURVES),
    *(f"{way}{intent}".encode() for way in ("A2B", "B2A", "D2B", "B2D") for intent in range(4)),
}
_KEPT_TYPES = {b"XYZ ", b"curv", b"para", b"sf32", b"cicp", b"mft1", b"mft2", b"mAB ", b"mBA ", b"mpet"}
_NAME = "RGB"
_VERSION_4 = 4


def cleaned_profile(profile: bytes, space: ColourSpace) -> bytes | None:
    """The profile with nothing but what computes colours; None where it is broken, too large, or for another colour
    space.
    """
    try:
        places = dict(_kept_tags(profile))
    except struct.error:
        return None
    distinct = set(places.values())
    is_of_space = profile[16:20] == space.encode() and profile[36:40] == b"acsp"
    # Tags may share a place. If their places overlapped otherwise, a small profile could become very large.
    if not is_of_space or not places or sum(map(len, distinct)) > len(profile):
        return None
    data = {place: profile[place.start : place.stop] for place in distinct}
    tags = {name: data[place] for name, place in places.items()}
    head = bytearray(_HEAD_BYTES)
    for kept in _KEPT_HEAD:
        head[kept] = profile[kept]
    cleaned = _written(head, {**_required_texts(profile[8] >= _VERSION_4), **tags})
    return cleaned if len(cleaned) <= PROFILE_BYTES_MAX else None


def _kept_tags(profile: bytes) -> Iterator[tuple[bytes, range]]:
    """Their names, and where their data is in the profile."""
    (count,) = struct.unpack_from(">I", profile, _HEAD_BYTES)
    for number in range(min(count, _TAGS_MAX)):
        name, start, length = _TAG.unpack_from(profile, _HEAD_BYTES + 4 + number * _TAG.size)
        place = range(start, start + length)
        if name in _KEPT_TAGS and profile[start : start + min(length, 4)] in _KEPT_TYPES and place.stop <= len(profile):
            yield name, place


def _required_texts(is_version_4: bool) -> Mapping[bytes, bytes]:
    """A description and a copyright, which every profile must have."""
    if is_version_4:
        name = _NAME.encode("utf-16-be")
        text = b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(name), 28) + name
        return {b"desc": text, b"cprt": text}
    name = _NAME.encode() + b"\0"
    return {b"desc": b"desc" + struct.pack(">4xI", len(name)) + name + bytes(78), b"cprt": b"text\0\0\0\0" + name}


def _written(head: bytearray, tags: Mapping[bytes, bytes]) -> bytes:
    table, body, places = bytearray(struct.pack(">I", len(tags))), bytearray(), dict[bytes, int]()
    start = _HEAD_BYTES + 4 + _TAG.size * len(tags)
    for name, data in tags.items():
        if data not in places:  # the three curves are mostly one
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += _TAG.pack(name, places[data], len(data))
    head[:4] = struct.pack(">I", start + len(body))
    return bytes(head + table + body)
