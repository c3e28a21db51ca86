"""The items that a HEIF file lists in its box `meta`: which there are, how large they are, where their bytes are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.providers import Size
from app.providers.containers import bounded
from app.providers.containers.boxes import Box, Reader, boxes_between
from app.providers.structure import BrokenImage

_LIST_BYTES_MAX = 2**18
"""Of each list in `meta`. A photograph of 50 megapixels has 200 tiles, listed in 10 KB."""
_WITH_SHORT_NUMBERS = 2
_IN_FILE, _IN_IDAT = 0, 1

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Items:
    """What the lists say, by the items' numbers."""

    primary: int
    kinds: Mapping[int, bytes]
    kinds_at: Mapping[int, int]
    """Where the kind of each item stands in the file."""
    sizes: Mapping[int, Size]
    tiles: Mapping[int, Sequence[int]]
    """Of each grid, the items that it consists of."""
    places: Mapping[int, Sequence[slice]]
    """Where the bytes of an item are in the file."""


def read_items(content: bytes, meta: Box) -> Items:
    """Raises BrokenImage where a list is missing, there twice, too long or damaged, or bytes are not in the file."""
    lists = _lists(content, meta.start + 4, meta.end)
    properties = _lists(content, lists[b"iprp"].start, lists[b"iprp"].end)
    kinds_at = _each_once(_kinds_at(content, lists[b"iinf"]))
    return Items(
        primary=_primary(content, lists[b"pitm"]),
        kinds={item: content[at : at + 4] for item, at in kinds_at.items()},
        kinds_at=kinds_at,
        sizes=_sizes(content, properties[b"ipco"], properties[b"ipma"]),
        tiles=_each_once(_tiles(content, lists[b"iref"])) if b"iref" in lists else {},
        places=_each_once(_places(content, lists[b"iloc"], lists.get(b"idat"))),
    )


def _require(holds: object) -> None:
    if not holds:
        raise BrokenImage


def _each_once(pairs: Iterator[tuple[int, Value]]) -> Mapping[int, Value]:
    """By item. Raises BrokenImage for an item that is there twice: a decoder may take the other one."""
    found = dict[int, Value]()
    for item, value in pairs:
        _require(item not in found)
        found[item] = value
    return found


def _lists(content: bytes, start: int, end: int) -> Mapping[bytes, Box]:
    found = dict[bytes, Box]()
    for box in bounded(boxes_between(content, start, end)):
        _require(box.kind not in found and (box.kind == b"idat" or box.end - box.start <= _LIST_BYTES_MAX))
        found[box.kind] = box
    return found


def _opened(content: bytes, box: Box) -> tuple[int, int, Reader]:
    """Version, flags, and what comes behind them."""
    reader = Reader(content, box.start, box.end)
    return reader.take(1), reader.take(3), reader


def _primary(content: bytes, box: Box) -> int:
    version, _, reader = _opened(content, box)
    return reader.take(4 if version else 2)


def _kinds_at(content: bytes, box: Box) -> Iterator[tuple[int, int]]:
    version, _, reader = _opened(content, box)
    reader.take(4 if version else 2)
    for entry in boxes_between(content, reader.at, box.end):
        version, _, reader = _opened(content, entry)
        item = reader.take(2 if version == _WITH_SHORT_NUMBERS else 4)
        yield item, reader.at + 2


def _sizes(content: bytes, properties: Box, associations: Box) -> Mapping[int, Size]:
    """The largest size that is stated for each item."""
    stated, sizes = list(boxes_between(content, properties.start, properties.end)), dict[int, Size]()
    for item, number in _associations(content, associations):
        if 0 < number <= len(stated) and stated[number - 1].kind == b"ispe":
            _, _, reader = _opened(content, stated[number - 1])
            size = Size(reader.take(4), reader.take(4))
            sizes[item] = max(size, sizes.get(item, size), key=lambda each: each.width * each.height)
    return sizes


def _associations(content: bytes, box: Box) -> Iterator[tuple[int, int]]:
    """Each item with the number of each of its properties, counted from 1."""
    version, flags, reader = _opened(content, box)
    length = 2 if flags & 1 else 1
    is_essential = 1 << 8 * length - 1
    for _ in range(reader.take(4)):
        item = reader.take(4 if version else 2)
        for _ in range(reader.take(1)):
            yield item, reader.take(length) & ~is_essential


def _tiles(content: bytes, box: Box) -> Iterator[tuple[int, Sequence[int]]]:
    version, _, reader = _opened(content, box)
    length = 4 if version else 2
    for reference in boxes_between(content, reader.at, box.end):
        if reference.kind == b"dimg":
            reader = Reader(content, reference.start, reference.end)
            yield reader.take(length), [reader.take(length) for _ in range(reader.take(2))]


def _places(content: bytes, box: Box, idat: Box | None) -> Iterator[tuple[int, Sequence[slice]]]:
    version, _, reader = _opened(content, box)
    lengths = reader.take(2)
    offset_length, length_length, base_length, index_length = (lengths >> shift & 15 for shift in (12, 8, 4, 0))
    id_length = 4 if version > 1 else 2
    for _ in range(reader.take(id_length)):
        item, method = reader.take(id_length), reader.take(2) if version else 0
        reader.take(2)  # which file: this one
        base, count = reader.take(base_length), reader.take(2)
        _require(method in {_IN_FILE, _IN_IDAT} and (count <= 1 or offset_length + length_length))
        place = idat if method == _IN_IDAT else Box(b"", 0, 0, len(content))
        if place is None:
            raise BrokenImage
        places = list[slice]()
        for _ in range(count):
            reader.take(index_length if version else 0)
            start = place.start + base + reader.take(offset_length)
            end = start + reader.take(length_length) if length_length else place.end
            _require(start <= end <= place.end)
            places.append(slice(start, end))
        yield item, places
