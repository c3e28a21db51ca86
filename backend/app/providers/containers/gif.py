"""GIF files: the screen and the first image are kept."""

import struct
from collections.abc import Iterator

from app.providers import Size
from app.providers.containers import StrippedImage, bounded
from app.providers.structure import BrokenImage

_HEAD = struct.Struct("<6sHHBBB")
_IMAGE = struct.Struct("<HHHHB")
_EXTENSION_BLOCK, _IMAGE_BLOCK, _END_BLOCK = b"!", b",", b";"
_CONTROL = b"!\xf9\x04"
"""Begins the extension with the transparent colour of the image behind it, of 8 bytes."""
_CONTROL_BYTES = 8
_SUB_BLOCKS_MAX = 2**18
"""Of 255 bytes each in files of 50 MB."""


def strip_gif(content: bytes) -> StrippedImage:
    """The file without comments, data of applications, further images, and what stands behind its end. Raises
    BrokenImage.
    """
    _, width, height, flags, _, _ = _HEAD.unpack_from(content)
    start = _HEAD.size + _palette_bytes(flags)
    control, images = b"", list[bytes]()
    for block in bounded(_blocks(content, start)):
        if block.startswith(_IMAGE_BLOCK):
            images.append(b"" if images else block)
        elif block.startswith(_CONTROL) and not images:
            control = block[:_CONTROL_BYTES]
    if not images:
        raise BrokenImage
    left, top, columns, rows, _ = _IMAGE.unpack_from(images[0], 1)
    stripped = b"".join((content[:start], control, images[0], _END_BLOCK))
    size = Size(max(width, left + columns), max(height, top + rows))
    return StrippedImage(stripped, "gif", size, is_animated=len(images) > 1)


def _blocks(content: bytes, at: int) -> Iterator[bytes]:
    """Each extension and image, up to the end of the file."""
    sub_blocks = 0
    while (kind := content[at : at + 1]) != _END_BLOCK:
        start = at
        if kind == _EXTENSION_BLOCK:
            at += 2
        elif kind == _IMAGE_BLOCK:
            at += 2 + _IMAGE.size + _palette_bytes(content[at + _IMAGE.size])
        else:
            raise BrokenImage
        while length := content[at]:
            at, sub_blocks = at + 1 + length, sub_blocks + 1
            if sub_blocks > _SUB_BLOCKS_MAX:
                raise BrokenImage
        at += 1
        yield content[start:at]


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
