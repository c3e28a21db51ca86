"""Files that are refused, and the sentence for each."""

import struct
from collections.abc import Mapping

from tests.providers.heif_files import SIZE, Item, box, coded_item, grid, heif
from tests.providers.input_files import (
    ANIMATIONS,
    AVIF,
    AVIF_TILE,
    GIF,
    GIF_IMAGE,
    HEIC,
    JPEG,
    LOSSLESS,
    PNG,
    TALKING_WEBP,
    TILE,
    WEBP,
    ZIP,
    avif,
    chunk,
    encoded,
    patched,
    picture,
    png_of,
    riff,
    segment,
)

EMPTY = "The image is empty"
OTHER_TYPE = "The image is no PNG, JPEG, WebP, AVIF, HEIC or GIF"
ANIMATED = "The image is animated: only its first frame could be taken, with first_frame"
TOO_MANY_PIXELS = "The image has more than 50,331,648 pixels, or a side of more than 65,535"
BROKEN = "The image is damaged, incomplete or of an unusual kind: it cannot be read"


WHOLE: Mapping[str, bytes] = {
    "PNG": PNG,
    "JPEG": JPEG,
    "WebP": WEBP,
    "GIF": GIF,
    "AVIF": AVIF,
    "HEIC": HEIC["colour"],
}
OTHER_TYPES: Mapping[str, bytes] = {
    "PDF": b"%PDF-1.7\n1 0 obj\n",
    "a PDF with a JPEG in it": b"%PDF-1.7\n" + JPEG,
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
    "HTML": b"<!doctype html><title>image</title>",
    "MP4": box(b"ftyp", b"isom", bytes(4), b"isom", b"mp42") + box(b"moov", b"") + box(b"mdat", b""),
    "ZIP": ZIP,
    "a ZIP with a PNG in it": ZIP + PNG,
    "text": b"a banana on the moon",
    "one byte": b"\x89",
    "TIFF": encoded(picture(), "TIFF"),
    "BMP": encoded(picture(), "BMP"),
    "ICO": encoded(picture(), "ICO"),
    "JPEG 2000": encoded(picture(), "JPEG2000"),
    "a WAV": b"RIFF\4\0\0\0WAVE",
    "data: URL": b"data:image/png;base64,iVBORw0KGgo=",
}
SOF, SOS = JPEG.index(b"\xff\xc0"), JPEG.index(b"\xff\xda")
WIDE = struct.pack("<HH", 65_535, 65_535)
HIDDEN_AV1 = b"\x0a\x07" + int(f"{0b00011_00000_1111_1111:018b}" + "1" * 32 + "0" * 6, 2).to_bytes(7)
"""A sequence header of AV1 for frames of 65,536x65,536."""
BOMBS: Mapping[str, bytes] = {
    "PNG of 50,000x50,000": png_of(50_000, 50_000, bytes(1000)),
    "PNG of 8,000x8,000 in a small file": png_of(8000, 8000, bytes(1001 * 8000), bits=1, colours=0),
    "PNG of one row": png_of(2**31 - 1, 1, bytes(1000)),
    "JPEG of 65,535x65,535": patched(JPEG, SOF + 5, b"\xff" * 4),
    "WebP, canvas": patched(TALKING_WEBP, 24, b"\xff\x3f\0\xff\x3f\0"),
    "WebP, frame": patched(WEBP, 26, b"\xff\x3f\xff\x3f"),
    "WebP, lossless frame": patched(LOSSLESS, 21, b"\xff\xff\xff\x0f"),
    "GIF, screen": patched(GIF, 6, WIDE),
    "GIF, image beyond the screen": patched(GIF, GIF_IMAGE + 1, WIDE * 2),
    "AVIF, stated size": avif(coded_item(AVIF, size=(50_000, 50_000))),
    "AVIF, size in the stream": avif(Item(b"av01", HIDDEN_AV1, AVIF_TILE.properties)),
    "AVIF, grid": avif(grid((60_000, 60_000), [2, 2], columns=2, stated=SIZE), AVIF_TILE),
    "HEIC, stated size": heif(coded_item(HEIC["colour"], size=(50_000, 50_000))),
    "HEIC, grid": heif(grid((60_000, 60_000), [2, 2], columns=2, stated=SIZE), TILE),
    "HEIC, one tile many times": heif(
        grid((7000, 7000), [2] * 200, columns=20), coded_item(HEIC["colour"], size=(7000, 7000))
    ),
}
MANY = 40_000
BOMBS_OF_PARTS: Mapping[str, bytes] = {
    "PNG, chunks": PNG[:33] + chunk(b"tEXt", b"") * MANY + PNG[33:],
    "JPEG, segments": JPEG[:20] + segment(0xFE, b"") * MANY + JPEG[20:],
    "JPEG, scans": JPEG[:SOS] + JPEG[SOS:-2] * 21 + JPEG[-2:],
    "WebP, chunks": riff(*[(b"abcd", b"")] * MANY),
    "GIF, extensions": GIF[:-1] + b"!\xfe\0" * MANY + b";",
    "GIF, sub-blocks": GIF[:-1] + b"!\xfe" + b"\1\0" * 300_000 + b"\0;",
    "HEIC, boxes": heif(TILE, behind=[box(b"free")] * MANY),
    "HEIC, items": heif(TILE, *[Item(b"hvc1", b"")] * MANY),
    "HEIC, items without a size": heif(Item(b"hvc1", TILE.data, TILE.properties[:1])),
    "HEIC, an item twice": heif(grid((96, 64), [2], columns=1), TILE).replace(b"infe\2\0\0\0\0\2", b"infe\2\0\0\0\0\1"),
    "AVIF, units": avif(Item(b"av01", b"\x12\0" * MANY, AVIF_TILE.properties)),
    "HEIC, a grid of itself": heif(grid((96, 64), [1], columns=1)),
}
BROKEN_FILES: Mapping[str, bytes] = {
    **{f"{name}, cut at {n}/10": whole[: len(whole) * n // 10] for name, whole in WHOLE.items() for n in range(1, 10)},
    **{f"{name}, without its last byte": whole[:-1] for name, whole in WHOLE.items()},
    "PNG, wrong checksum of pixels": patched(PNG, len(PNG) - 16, b"\0\0\0\0"),
    "PNG, nothing in it": PNG[:33] + PNG[-12:],
    "JPEG, nothing in it": b"\xff\xd8\xff\xd9",
    "JPEG, arithmetic coding": patched(JPEG, SOF, b"\xff\xc9"),
    "JPEG, 12 bits": patched(JPEG, SOF + 4, b"\x0c"),
    "WebP, nothing in it": riff(),
    "GIF, nothing in it": GIF[:13] + b";",
    "HEIC, nothing in it": HEIC["colour"][:28],
    "HEIC, an archive behind it": HEIC["colour"] + ZIP,
    "HEIC, pixels of another codec": heif(Item(b"unci", TILE.data, TILE.properties)),
    "AVIF, bytes that are no AV1": avif(Item(b"av01", bytes(100), AVIF_TILE.properties)),
}
REFUSED: Mapping[str, tuple[bytes, str]] = {
    "nothing": (b"", EMPTY),
    **{f"animated, {name}": (content, ANIMATED) for name, content in ANIMATIONS.items()},
    **{name: (content, OTHER_TYPE) for name, content in OTHER_TYPES.items()},
    **{f"bomb: {name}": (content, TOO_MANY_PIXELS) for name, content in BOMBS.items()},
    **{f"bomb: {name}": (content, BROKEN) for name, content in BOMBS_OF_PARTS.items()},
    **{name: (content, BROKEN) for name, content in BROKEN_FILES.items()},
}
