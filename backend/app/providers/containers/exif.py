"""The one thing that EXIF says about pixels."""

import struct
from contextlib import suppress

_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION, _VALUES = 0x0112, {3: "H", 4: "I"}
_ORIENTATIONS, _ENTRY_BYTES = range(1, 9), 12


def orientation_of(exif: bytes) -> int:
    """The orientation that EXIF, from its TIFF header on, states: 1 to 8, and 1 where it states none of these."""
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        return 1
    with suppress(struct.error):
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == _ORIENTATION and kind in _VALUES:
                (value,) = struct.unpack_from(order + _VALUES[kind], exif, entry + 8)
                return int(value) if value in _ORIENTATIONS else 1
    return 1
