"""What the files are made of that a caller may send as an image.

All show red, green, blue and yellow quarters where upright, written `RGBY`: top left, top right, bottom left, bottom
right. `CANARY` stands wherever a format has a place for words.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import ImageCms
from tests.providers.heif_files import SIZE, Item, box, coded_item, heif

CANARY = b"Canary Islands"
COLOURS = {"R": (230, 30, 30), "G": (30, 200, 30), "B": (30, 30, 230), "Y": (230, 220, 30)}
HEIC_FOLDER = Path(__file__).parent / "heic"
"""Written by pillow-heif's x265, which is not installed here."""


def picture(mode: str = "RGB") -> Pillow.Image:
    image = Pillow.new("RGB", SIZE)
    half = SIZE[0] // 2, SIZE[1] // 2
    for number, colour in enumerate(COLOURS.values()):
        left, top = number % 2 * half[0], number // 2 * half[1]
        image.paste(colour, (left, top, left + half[0], top + half[1]))
    if mode == "P":
        return image.quantize(len(COLOURS))
    return Pillow.frombytes(mode, SIZE, doubled(image.convert("L"))) if mode == "I;16" else image.convert(mode)


def doubled(image: Pillow.Image) -> bytes:
    """The samples, with 16 bits each."""
    return bytes(each for sample in image.tobytes() for each in (sample, sample))


def see_through(mode: str = "RGBA") -> Pillow.Image:
    """With nothing in the yellow corner."""
    image, alpha = picture("RGBA"), Pillow.new("L", SIZE, 255)
    alpha.paste(0, (SIZE[0] // 2, SIZE[1] // 2, *SIZE))
    image.putalpha(alpha)
    return image.convert(mode)


def encoded(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def png_of(width: int, height: int, pixels: bytes, *, bits: int = 8, colours: int = 2, before: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    return PNG[:8] + head + before + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def avif(*items: Item, behind: Sequence[bytes] = ()) -> bytes:
    return heif(*items, brands=(b"avif", b"mif1"), behind=behind)


def exif_of(orientation: int = 1) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010E], exif[0x013B] = orientation, CANARY.decode(), CANARY.decode()
    exif[0x8825] = {1: "N", 2: (28.0, 17.0, 30.0), 27: CANARY}
    return exif


PNG, JPEG, WEBP, GIF = (encoded(picture(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF"))
LOSSLESS = encoded(picture(), "WEBP", lossless=True)
AVIF = encoded(picture(), "AVIF", quality=90, subsampling="4:4:4")
HEIC = {path.stem: path.read_bytes() for path in HEIC_FOLDER.iterdir()}
TILE, AVIF_TILE = coded_item(HEIC["colour"]), coded_item(AVIF)
FRAMES = [picture(), picture().rotate(180)]
ANIMATIONS: Mapping[str, bytes] = {
    **{
        kind: encoded(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], duration=50)
        for kind in ("PNG", "WEBP", "GIF")
    },
    "AVIF": encoded(FRAMES[0], "AVIF", save_all=True, append_images=FRAMES[1:], quality=90, subsampling="4:4:4"),
    "HEIC": heif(TILE, brands=(b"hevc", b"msf1", b"heic"), behind=[box(b"moov", CANARY)]),
}


def rgb_profile(tags: Mapping[bytes, range], data: bytes) -> bytes:
    """A profile whose tags have these places in the data."""
    start = 128 + 4 + 12 * len(tags)
    table = b"".join(struct.pack(">4sII", name, start + place.start, len(place)) for name, place in tags.items())
    head = struct.pack(">I4xI4s4s4s12x4s88x", start + len(data), 2 << 24, b"prtr", b"RGB ", b"Lab ", b"acsp")
    return head + struct.pack(">I", len(tags)) + table + data


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TALKING_PROFILE = PROFILE.replace("sRGB built-in".encode("utf-16-be"), "Canary's iMac".encode("utf-16-be"))
"""An sRGB whose description is a person's."""
LARGE_PROFILE = rgb_profile({b"A2B0": range(1_500_000)}, b"mft2".ljust(1_500_000, b"\0"))
"""As of a printer: larger than what Pillow takes by itself in a PNG."""
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><photo>" + CANARY + b"</photo></x:xmpmeta>"
ZIP = b"PK\3\4" + CANARY + b"PK\5\6" + bytes(18)

TALKING_PNG = PNG[:33] + b"".join(
    (
        chunk(b"iCCP", CANARY + b"\0\0" + zlib.compress(TALKING_PROFILE)),
        chunk(b"tEXt", b"Author\0" + CANARY),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(CANARY)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"tIME", struct.pack(">HBBBBB", 2026, 1, 2, 3, 4, 5)),
        chunk(b"gAMA", struct.pack(">I", 45455) + CANARY),
        chunk(b"caBX", CANARY),
        chunk(b"prVt", CANARY),
        PNG[33:-12],
        chunk(b"eXIf", exif_of().tobytes()[6:]),
        chunk(b"tEXt", b"Place\0" + CANARY),
        PNG[-12:],
    )
)
TALKING_JPEG = JPEG[:20] + b"".join(
    (
        segment(0xE0, b"JFXX\0\x10" + CANARY),
        segment(0xE1, exif_of().tobytes()),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        segment(0xE2, b"ICC_PROFILE\0\1\1" + TALKING_PROFILE),
        segment(0xE2, b"MPF\0" + CANARY),
        segment(0xEB, b"JP\0\1" + CANARY),
        segment(0xED, b"Photoshop 3.0\0008BIM\4\4" + CANARY),
        segment(0xEE, b"Adobe\0d\0\0\0\0\1" + CANARY),
        segment(0xFE, CANARY),
        JPEG[20:],
    )
)
TALKING_WEBP = riff(
    (b"VP8X", b"\x2c\0\0\0" + b"".join((each - 1).to_bytes(3, "little") for each in SIZE)),
    (b"ICCP", TALKING_PROFILE),
    (b"VP8 ", WEBP[20:]),
    (b"EXIF", exif_of().tobytes()),
    (b"XMP ", XMP),
    (b"C2PA", CANARY),
)
GIF_IMAGE = GIF.index(b",", 13 + 3 * 2 ** ((GIF[10] & 7) + 1))
"""Where its image begins, behind the palette."""
TALKING_GIF = b"".join(
    (
        GIF[:GIF_IMAGE],
        b"!\xfe" + bytes((len(CANARY),)) + CANARY + b"\0",
        b"!\xff\x0bXMP DataXMP" + bytes((len(CANARY),)) + CANARY + b"\0",
        GIF[GIF_IMAGE:],
    )
)
