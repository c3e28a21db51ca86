"""The size of the frames within an AV1 stream, which the boxes around it may not say."""

from collections.abc import Iterator

from app.providers.containers import bounded
from app.providers.structure import BrokenImage

_SEQUENCE_HEADER = 1
_HEADER_BYTES_MAX, _LENGTH_BYTES_MAX = 256, 8
_GOES_ON = 0x80
_TIERED_LEVELS = range(8, 32)


def pixels_of_av1(stream: bytes) -> int:
    """The pixels of the largest frame that a sequence header in the stream allows; 0 where it has none. Raises
    BrokenImage.
    """
    headers = (data for kind, data in bounded(_units(stream)) if kind == _SEQUENCE_HEADER)
    return max(map(_pixels, headers), default=0)


def _units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind of each unit, and how its data begin."""
    at = 0
    while at < len(stream):
        head = stream[at]
        kind, has_extension, has_length = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
        at += 1 + has_extension
        length = len(stream) - at
        if has_length:
            length, at = _leb128(stream, at)
        yield kind, stream[at : at + min(length, _HEADER_BYTES_MAX)]
        at += length


def _leb128(stream: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for number, byte in enumerate(stream[at : at + _LENGTH_BYTES_MAX]):
        value |= (byte & ~_GOES_ON) << 7 * number
        if not byte & _GOES_ON:
            return value, at + number + 1
    raise BrokenImage


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise BrokenImage
        return self._value >> self._left & (1 << count) - 1


def _pixels(header: bytes) -> int:
    """As chapter 5.5.1 of AV1's specification has it. A header with times, as films have, is refused."""
    bits = _Bits(header)
    bits.take(4)  # profile, still_picture
    is_reduced = bits.take(1)
    if is_reduced:
        bits.take(5)
    else:
        _pass_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1)


def _pass_operating_points(bits: _Bits) -> None:
    has_times, has_delays = bits.take(1), bits.take(1)
    if has_times:
        raise BrokenImage
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) in _TIERED_LEVELS:
            bits.take(1)
        if has_delays and bits.take(1):
            bits.take(4)
