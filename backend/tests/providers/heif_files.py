"""HEIC and AVIF files of any structure, built around the pixels of a file that an encoder wrote."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

SIZE = (96, 64)


def box(kind: bytes, *data: bytes) -> bytes:
    body = b"".join(data)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *data: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *data)


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + length]
        at += length


@dataclass(frozen=True)
class Item:
    kind: bytes
    data: bytes
    properties: Sequence[bytes] = ()
    tiles: Sequence[int] = ()


def coded_item(encoded: bytes, *, size: tuple[int, int] = SIZE, more: Sequence[bytes] = ()) -> Item:
    """The only item of a file, with another size stated if that is wanted, and with more properties."""
    parts = dict(boxes(encoded))
    meta = dict(boxes(parts[b"meta"][4:]))
    stated = dict(boxes(dict(boxes(meta[b"iprp"]))[b"ipco"]))
    codec, kind = (b"hvcC", b"hvc1") if b"hvcC" in stated else (b"av1C", b"av01")
    kept = [box(each, stated[each]) for each in (codec, b"pixi", b"colr") if each in stated]
    return Item(kind, parts[b"mdat"], [*kept, ispe(*size), *more])


ESSENTIAL = {b"av1C", b"hvcC", b"irot", b"imir"}
"""The properties that a reader may not pass over."""


def ispe(width: int, height: int) -> bytes:
    return full(b"ispe", struct.pack(">II", width, height))


def turned(rotation: int, mirror: int | None) -> Sequence[bytes]:
    """`irot`, by quarters of a turn against the clock, and `imir`, by the axis."""
    return [box(b"irot", bytes((rotation,))), *([] if mirror is None else [box(b"imir", bytes((mirror,)))])]


TURNS: Mapping[int, Sequence[bytes]] = {
    1: (),
    2: turned(0, 1),
    3: turned(2, None),
    4: turned(0, 0),
    5: turned(1, 0),
    6: turned(3, None),
    7: turned(3, 0),
    8: turned(1, None),
}
"""The properties that turn the pixels as EXIF's orientation of that number does."""


def grid(size: tuple[int, int], tiles: Sequence[int], *, columns: int, stated: tuple[int, int] | None = None) -> Item:
    rows = len(tiles) // columns
    data = struct.pack(">BBBBII", 0, 1, (rows - 1) & 255, (columns - 1) & 255, *size)
    return Item(b"grid", data, [ispe(*(stated or size))], tiles)


def heif(*items: Item, brands: Sequence[bytes] = (b"mif1",), behind: Sequence[bytes] = (), primary: int = 1) -> bytes:
    """A file with these items, numbered from 1."""
    head = box(b"ftyp", brands[0], bytes(4), *brands)
    start = len(head) + len(_meta(items, primary, 0)) + 8
    return b"".join((head, _meta(items, primary, start), box(b"mdat", *(each.data for each in items)), *behind))


def _meta(items: Sequence[Item], primary: int, start: int) -> bytes:
    numbered = list(enumerate(items, 1))
    starts = accumulate((len(each.data) for each in items), initial=start)
    places = (
        struct.pack(">HHHII", n, 0, 1, at, len(each.data)) for (n, each), at in zip(numbered, starts, strict=False)
    )
    entries = [full(b"infe", struct.pack(">HH4s", n, 0, each.kind), b"\0", version=2) for n, each in numbered]
    references = [
        box(b"dimg", struct.pack(f">HH{len(each.tiles)}H", n, len(each.tiles), *each.tiles))
        for n, each in numbered
        if each.tiles
    ]
    return full(
        b"meta",
        full(b"hdlr", bytes(4), b"pict", bytes(13)),
        full(b"pitm", struct.pack(">H", primary)),
        full(b"iloc", b"\x44\0", struct.pack(">H", len(items)), *places),
        full(b"iinf", struct.pack(">H", len(items)), *entries),
        *([full(b"iref", *references)] if references else []),
        _properties(numbered),
    )


def _properties(numbered: Sequence[tuple[int, Item]]) -> bytes:
    stated = [each for _, item in numbered for each in item.properties]
    firsts = accumulate((len(item.properties) for _, item in numbered), initial=1)
    associations = (
        struct.pack(">HB", n, len(item.properties))
        + bytes(number | 0x80 * (each[4:8] in ESSENTIAL) for number, each in enumerate(item.properties, first))
        for (n, item), first in zip(numbered, firsts, strict=False)
    )
    return box(b"iprp", box(b"ipco", *stated), full(b"ipma", struct.pack(">I", len(numbered)), *associations))
