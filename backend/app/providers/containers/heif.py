"""HEIC and AVIF files: what a decoder would allocate is added up, and what it need not read is hidden from it."""

from collections.abc import Iterator, Sequence

from app.providers import Size
from app.providers.containers import INPUT_PIXELS_MAX, StrippedImage, TooManyPixels, bounded, check_size
from app.providers.containers.av1 import pixels_of_av1
from app.providers.containers.boxes import Box, Reader, boxes_between
from app.providers.containers.heif_items import Items, read_items
from app.providers.structure import BrokenImage

_BRANDS = {b"mif1", b"heic", b"heix", b"heim", b"heis", b"avif"}
_SEQUENCE_BRANDS = {b"msf1": b"mif1", b"avis": b"avif", **dict.fromkeys((b"hevc", b"hevx", b"hevm", b"hevs"), b"heic")}
"""Those of sequences, each with that of the still image beside it."""
_GRID, _AV1 = b"grid", b"av01"
_CODED = {b"hvc1": b"heic", _AV1: b"avif"}
"""The kinds of items that hold pixels, each with the brand of its files."""
_READ_BOXES = {b"ftyp", b"meta", b"mdat", b"free"}
_TILES_MAX = 2 * INPUT_PIXELS_MAX
"""Pixels of a grid's tiles together. The last ones reach beyond the image."""


def is_heif(content: bytes) -> bool:
    """Whether the file says that it holds images in the format HEIF."""
    length = min(int.from_bytes(content[:4]), 1024)
    brands = {content[at : at + 4] for at in (8, *range(16, length, 4))}
    return content[4:8] == b"ftyp" and not brands.isdisjoint(_BRANDS | _SEQUENCE_BRANDS.keys())


def strip_heif(content: bytes) -> StrippedImage:
    """The file as one that has the image alone: sequences, other data and items without pixels get kinds that decoders
    pass over. It says by its brand which decoder it is for, and its size is as stated: before the image is turned.

    Raises BrokenImage; and TooManyPixels where an image, or its tiles together, would be too large.
    """
    top = list(bounded(boxes_between(content, 0, len(content))))
    metas = [box for box in top if box.kind == b"meta"]
    if len(metas) != 1 or top[0].kind != b"ftyp" or top[0].end - top[0].start < len(b"avif"):
        raise BrokenImage
    items = read_items(content, metas[0])
    _check_work(content, items)
    first_tile = items.tiles.get(items.primary, [items.primary])[0]
    hidden = bytearray(content)
    for at, kind in _other_kinds(content, top, items):
        hidden[at : at + 4] = kind
    hidden[top[0].start : top[0].start + 4] = _CODED[items.kinds[first_tile]]
    is_animated = any(box.kind == b"moov" for box in top)
    return StrippedImage(bytes(hidden), "heif", items.sizes[items.primary], is_animated=is_animated)


def _other_kinds(content: bytes, top: Sequence[Box], items: Items) -> Iterator[tuple[int, bytes]]:
    """Where another kind is written into the file, and which."""
    yield from ((box.kind_at, b"free") for box in top if box.kind not in _READ_BOXES)
    brands = (at for at in range(top[0].start, top[0].end, 4) if content[at : at + 4] in _SEQUENCE_BRANDS)
    yield from ((at, _SEQUENCE_BRANDS[content[at : at + 4]]) for at in brands)
    without_pixels = (item for item, kind in items.kinds.items() if kind != _GRID and kind not in _CODED)
    yield from ((items.kinds_at[item], b"none") for item in without_pixels)


def _check_work(content: bytes, items: Items) -> None:
    """Raises TooManyPixels for what a decoder would need too much memory or time for."""
    if sum(place.stop - place.start for places in items.places.values() for place in places) > len(content):
        raise BrokenImage
    areas = {item: _area(content, items, item) for item, kind in items.kinds.items() if kind in _CODED}
    for item in (item for item, kind in items.kinds.items() if kind == _GRID):
        check_size(*items.sizes[item])
        check_size(*_grid_size(_bytes_of(content, items, item)))
        if sum(areas[tile] for tile in items.tiles[item]) > _TILES_MAX:
            raise TooManyPixels


def _area(content: bytes, items: Items, item: int) -> int:
    size = items.sizes[item]
    check_size(*size)
    area = size.width * size.height
    if items.kinds[item] == _AV1:
        area = max(area, pixels_of_av1(_bytes_of(content, items, item)))
    if area > INPUT_PIXELS_MAX:
        raise TooManyPixels
    return area


def _bytes_of(content: bytes, items: Items, item: int) -> bytes:
    return b"".join(content[place] for place in items.places[item])


def _grid_size(grid: bytes) -> Size:
    reader = Reader(grid, 0, len(grid))
    reader.take(1)
    length = 4 if reader.take(1) & 1 else 2
    reader.take(2)  # rows and columns: as many tiles as are referred to
    return Size(reader.take(length), reader.take(length))
