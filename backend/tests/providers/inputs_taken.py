"""Files that are taken in, and what each becomes."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.images import ImageFormat
from PIL import Image as Pillow
from tests.providers.heif_files import SIZE, TURNS, Item, box, coded_item, grid, heif
from tests.providers.input_files import (
    ANIMATIONS,
    AVIF,
    AVIF_TILE,
    CANARY,
    GIF,
    HEIC,
    JPEG,
    LOSSLESS,
    PNG,
    PROFILE,
    TALKING_GIF,
    TALKING_JPEG,
    TALKING_PNG,
    TALKING_PROFILE,
    TALKING_WEBP,
    TILE,
    WEBP,
    XMP,
    ZIP,
    avif,
    chunk,
    doubled,
    encoded,
    exif_of,
    picture,
    png_of,
    see_through,
    segment,
)


@dataclass(frozen=True)
class Taken:
    """A file that is taken, and what it becomes."""

    content: bytes
    format: ImageFormat
    corners: str = "RGBY"
    size: tuple[int, int] = SIZE
    mode: str = "RGB"
    first_frame: bool = False


def transparent(content: bytes, image_format: ImageFormat) -> Taken:
    return Taken(content, image_format, "RGB ", mode="RGBA")


Turn = Pillow.Transpose
UNDOING: Sequence[Turn | None] = (
    *(None, Turn.FLIP_LEFT_RIGHT, Turn.ROTATE_180, Turn.FLIP_TOP_BOTTOM),
    *(Turn.TRANSPOSE, Turn.ROTATE_90, Turn.TRANSVERSE, Turn.ROTATE_270),
)
"""What undoes the turn of each orientation, from 1."""
CORNERS = ("RGBY", "GRYB", "YBGR", "BYRG", "RBGY", "BRYG", "YGBR", "GYRB")
"""Of the picture behind each turn."""


def turned(orientation: int) -> Mapping[str, Taken]:
    """Stored so that it stands upright when it is turned; in HEIC and AVIF stored upright, so that it does not."""
    undoing, exif, boxes = UNDOING[orientation - 1], exif_of(orientation), TURNS[orientation]
    stored = picture() if undoing is None else picture().transpose(undoing)
    corners, size = CORNERS[orientation - 1], SIZE if undoing not in UNDOING[4:] else SIZE[::-1]
    return {
        f"PNG, orientation {orientation}": Taken(encoded(stored, "PNG", exif=exif), "png"),
        f"JPEG, orientation {orientation}": Taken(encoded(stored, "JPEG", exif=exif), "jpeg"),
        f"WebP, orientation {orientation}": Taken(
            encoded(stored, "WEBP", exif=exif), "webp" if undoing is None else "jpeg"
        ),
        f"HEIC, orientation {orientation}": Taken(heif(coded_item(HEIC["colour"], more=boxes)), "jpeg", corners, size),
        f"AVIF, orientation {orientation}": Taken(avif(coded_item(AVIF, more=boxes)), "jpeg", corners, size),
    }


ROWS_OF_16_BITS = (b"\0" + doubled(picture().crop((0, row, SIZE[0], row + 1))) for row in range(SIZE[1]))
ZLIB_BOMB = b"a\0\0" + zlib.compress(bytes(2**23))
SPOKEN = (Item(b"Exif", bytes(4) + exif_of(6).tobytes()), Item(b"mime", XMP))
BOXES_BEHIND = (box(b"uuid", bytes(16), CANARY), box(b"mpvd", CANARY))

TAKEN: Mapping[str, Taken] = {
    "PNG": Taken(PNG, "png"),
    "PNG, grey": Taken(encoded(picture("L"), "PNG"), "png", mode="L"),
    "PNG, palette": Taken(encoded(picture("P"), "PNG"), "png", mode="P"),
    "PNG, black and white": Taken(encoded(picture("1"), "PNG"), "png", "", mode="1"),
    "PNG, transparent": transparent(encoded(see_through(), "PNG"), "png"),
    "PNG, grey, transparent": Taken(encoded(see_through("LA"), "PNG"), "png", "RGB ", mode="LA"),
    "PNG, 16 bits, grey": Taken(encoded(picture("I;16"), "PNG"), "png"),
    "PNG, 16 bits": Taken(png_of(*SIZE, b"".join(ROWS_OF_16_BITS), bits=16), "png"),
    "PNG, profile": Taken(encoded(picture(), "PNG", icc_profile=PROFILE), "png"),
    "PNG, metadata everywhere, a ZIP behind it": Taken(TALKING_PNG + ZIP, "png"),
    "PNG, PHP in it": Taken(PNG[:33] + chunk(b"tEXt", b"a\0<?php " + CANARY) + PNG[33:], "png"),
    "PNG, zlib bombs in it": Taken(PNG[:33] + chunk(b"iCCP", ZLIB_BOMB) + chunk(b"zTXt", ZLIB_BOMB) + PNG[33:], "png"),
    "PNG, a broken chunk of text": Taken(PNG[:33] + chunk(b"tEXt", CANARY)[:-1] + b"!" + PNG[33:], "png"),
    "PNG, first of an animation": Taken(ANIMATIONS["PNG"], "png", first_frame=True),
    "JPEG": Taken(JPEG, "jpeg"),
    "JPEG, grey": Taken(encoded(picture("L"), "JPEG"), "jpeg", mode="L"),
    "JPEG, CMYK": Taken(encoded(picture("CMYK"), "JPEG"), "jpeg"),
    "JPEG, CMYK, upside down": Taken(encoded(picture("CMYK").rotate(180), "JPEG", exif=exif_of(3)), "jpeg"),
    "JPEG, RGB as such": Taken(encoded(picture(), "JPEG", keep_rgb=True), "jpeg"),
    "JPEG, progressive": Taken(encoded(picture(), "JPEG", progressive=True), "jpeg"),
    "JPEG, progressive, CMYK": Taken(encoded(picture("CMYK"), "JPEG", progressive=True), "jpeg"),
    "JPEG, profile": Taken(encoded(picture(), "JPEG", icc_profile=PROFILE), "jpeg"),
    "JPEG, metadata everywhere, a JPEG behind it": Taken(TALKING_JPEG + JPEG + CANARY, "jpeg"),
    "JPEG, HTML in it": Taken(JPEG[:20] + segment(0xFE, b"<html><script>" + CANARY) + JPEG[20:], "jpeg"),
    "JPEG, HTML behind it": Taken(JPEG + b"<html><script>" + CANARY, "jpeg"),
    "JPEG, orientation 9": Taken(encoded(picture(), "JPEG", exif=exif_of(9)), "jpeg"),
    "WebP": Taken(WEBP, "webp"),
    "WebP, lossless": Taken(LOSSLESS, "webp"),
    "WebP, transparent": transparent(encoded(see_through(), "WEBP"), "webp"),
    "WebP, lossless, transparent": transparent(encoded(see_through(), "WEBP", lossless=True), "webp"),
    "WebP, profile": Taken(encoded(picture(), "WEBP", icc_profile=PROFILE), "webp"),
    "WebP, metadata everywhere, a ZIP behind it": Taken(TALKING_WEBP + ZIP, "webp"),
    "WebP, first of an animation": Taken(ANIMATIONS["WEBP"], "jpeg", first_frame=True),
    "GIF": Taken(GIF, "png"),
    "GIF, transparent": transparent(encoded(see_through(), "GIF"), "png"),
    "GIF, metadata everywhere, an archive behind it": Taken(TALKING_GIF + ZIP, "png"),
    "GIF, first of an animation": Taken(ANIMATIONS["GIF"], "png", first_frame=True),
    "AVIF": Taken(AVIF, "jpeg"),
    "AVIF, grey": Taken(encoded(picture("L"), "AVIF"), "jpeg", mode="L"),
    "AVIF, transparent": transparent(encoded(see_through(), "AVIF", quality=90, subsampling="4:4:4"), "png"),
    "AVIF, profile": Taken(encoded(picture(), "AVIF", quality=90, icc_profile=TALKING_PROFILE), "jpeg"),
    "AVIF, metadata everywhere": Taken(avif(AVIF_TILE, *SPOKEN, behind=BOXES_BEHIND), "jpeg"),
    "AVIF, tiles": Taken(avif(grid((192, 64), [2, 3], columns=2), AVIF_TILE, AVIF_TILE), "jpeg", size=(192, 64)),
    "AVIF, first of a sequence": Taken(ANIMATIONS["AVIF"], "jpeg", first_frame=True),
    "HEIC": Taken(HEIC["colour"], "jpeg"),
    "HEIC, grey": Taken(HEIC["grey"], "jpeg", mode="L"),
    "HEIC, 10 bits": Taken(HEIC["ten_bits"], "jpeg"),
    "HEIC, 10 bits, grey": Taken(HEIC["ten_bits_grey"], "png"),
    "HEIC, transparent": transparent(HEIC["alpha"], "png"),
    "HEIC, profile": Taken(heif(coded_item(HEIC["colour"], more=[box(b"colr", b"prof", TALKING_PROFILE)])), "jpeg"),
    "HEIC, metadata everywhere": Taken(heif(TILE, *SPOKEN, behind=BOXES_BEHIND), "jpeg"),
    "HEIC, tiles": Taken(heif(grid((96, 128), [2, 3], columns=1), TILE, TILE), "jpeg", size=(96, 128)),
    "HEIC, first of a sequence": Taken(ANIMATIONS["HEIC"], "jpeg", first_frame=True),
    **{name: each for orientation in range(1, 9) for name, each in turned(orientation).items()},
}
