"""Boxes of ISO's media format, in which HEIC and AVIF come: numbers, and boxes within boxes."""

from collections.abc import Iterator
from typing import NamedTuple

from app.providers.structure import BrokenImage


class Box(NamedTuple):
    """Its kind; where the kind stands; where its data begin, and where they end."""

    kind: bytes
    kind_at: int
    start: int
    end: int


class Reader:
    """Reads numbers, big end first, from one place to another. Raises BrokenImage behind that."""

    def __init__(self, content: bytes, at: int, end: int) -> None:
        self._content, self.at, self._end = content, at, end

    def take(self, length: int) -> int:
        """The number in the next bytes; 0 in none."""
        return int.from_bytes(self.take_bytes(length))

    def take_bytes(self, length: int) -> bytes:
        start, self.at = self.at, self.at + length
        if self.at > self._end:
            raise BrokenImage
        return self._content[start : self.at]


def boxes_between(content: bytes, start: int, end: int) -> Iterator[Box]:
    """Each box from one place to another. Raises BrokenImage where one ends behind that."""
    while start < end:
        reader = Reader(content, start, end)
        length, kind = reader.take(4), reader.take_bytes(4)
        if length == 1:
            length = reader.take(8)
        elif length == 0:  # up to the end
            length = end - start
        if not reader.at <= start + length <= end:
            raise BrokenImage
        yield Box(kind, start + 4, reader.at, start + length)
        start += length
