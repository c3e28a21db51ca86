"""Structure: bytes that are cut, out of order or against a checksum are refused, and no pixel is decoded to see it."""

import struct
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest
from app.core.images import IMAGE_FORMATS, ImageFormat
from app.providers.structure import BrokenImage, check_whole
from PIL import Image as Pillow

SIZE = (96, 64)
Chunks = list[tuple[bytes, bytes]]


def encoded(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def gradient(mode: str = "RGB") -> Pillow.Image:
    return Pillow.radial_gradient("L").resize(SIZE).convert(mode)


WHOLE: Mapping[str, bytes] = {
    **{f"PNG, {mode}": encoded(gradient(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "PNG, metadata": encoded(gradient(), "PNG", exif=Pillow.Exif(), icc_profile=b"profile", dpi=(72, 72)),
    **{f"JPEG, {mode}": encoded(gradient(mode), "JPEG") for mode in ("L", "RGB", "CMYK")},
    "JPEG, progressive": encoded(gradient(), "JPEG", progressive=True, optimize=True),
    "JPEG, restart markers": encoded(gradient(), "JPEG", restart_marker_rows=1),
    "WebP, lossy": encoded(gradient(), "WEBP"),
    "WebP, lossless": encoded(gradient(), "WEBP", lossless=True),
    "WebP, alpha": encoded(gradient("RGBA"), "WEBP"),
    "WebP, metadata": encoded(gradient(), "WEBP", icc_profile=b"profile", xmp=b"xmp"),
}


def format_of(name: str) -> ImageFormat:
    return next(each for each in IMAGE_FORMATS if name.lower().startswith(each))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_images_pass_with_and_without_bytes_behind_them(name: str) -> None:
    check_whole(WHOLE[name], format_of(name))
    check_whole(WHOLE[name] + b"behind", format_of(name))


@pytest.mark.parametrize("name", WHOLE)
def test_an_image_cut_at_any_place_is_refused(name: str) -> None:
    content = WHOLE[name]
    places = {len(content) * tenth // 10 for tenth in range(10)} | {len(content) - 1, len(content) - 2, 1, 9, 13}
    for length in places:
        with pytest.raises(BrokenImage):
            check_whole(content[:length], format_of(name))


def chunks_of(png: bytes) -> Chunks:
    chunks, at = Chunks(), 8
    while at < len(png):
        length, name = struct.unpack_from(">I4s", png, at)
        chunks.append((name, png[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def png_of(chunks: Chunks) -> bytes:
    made = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def header(**changed: int) -> tuple[bytes, bytes]:
    fields = {"width": 96, "height": 64, "bits": 8, "colours": 2, "compression": 0, "filters": 0, "interlace": 0}
    return b"IHDR", struct.pack(">IIBBBBB", *(fields | changed).values())


PNG = WHOLE["PNG, RGB"]
[HEAD, *_, END], PIXELS = chunks_of(PNG), b"".join(data for name, data in chunks_of(PNG) if name == b"IDAT")
DRAWN = (b"IDAT", PIXELS)

BROKEN_CHUNKS: Mapping[str, Chunks] = {
    "no IHDR": [DRAWN, END],
    "IHDR later": [(b"tEXt", b"a\0b"), HEAD, DRAWN, END],
    "IHDR twice": [HEAD, HEAD, DRAWN, END],
    "IHDR too short": [(b"IHDR", HEAD[1][:-1]), DRAWN, END],
    "no IDAT": [HEAD, END],
    "IDAT apart": [HEAD, (b"IDAT", PIXELS[:99]), (b"tEXt", b"a\0b"), (b"IDAT", PIXELS[99:]), END],
    "IDAT empty": [HEAD, (b"IDAT", b""), END],
    "IDAT too short for any such image": [header(width=4000, height=4000), (b"IDAT", zlib.compress(bytes(100))), END],
    "IDAT is no deflate stream": [HEAD, (b"IDAT", b"\xff" * len(PIXELS)), END],
    "the first line has no filter": [HEAD, (b"IDAT", zlib.compress(b"\x05" * 20_000)), END],
    "IEND with data": [HEAD, DRAWN, (b"IEND", b"data")],
    "PLTE later": [HEAD, DRAWN, (b"PLTE", bytes(3)), END],
    "PLTE twice": [HEAD, (b"PLTE", bytes(3)), (b"PLTE", bytes(3)), DRAWN, END],
    "palette without PLTE": [header(colours=3), DRAWN, END],
    "unknown critical chunk": [HEAD, (b"ABCD", b""), DRAWN, END],
    "a name that is none": [HEAD, (b"a\0cd", b""), DRAWN, END],
    "acTL": [HEAD, (b"acTL", struct.pack(">II", 1, 0)), DRAWN, END],
    "fcTL": [HEAD, (b"fcTL", bytes(26)), DRAWN, END],
    "fdAT": [HEAD, DRAWN, (b"fdAT", bytes(9)), END],
    **{
        f"{field} of {value}": [header(**{field: value}), DRAWN, END]
        for field, value in [
            *(("width", 0), ("height", 0), ("bits", 3), ("bits", 1), ("colours", 1), ("colours", 7)),
            *(("compression", 1), ("filters", 1), ("interlace", 2)),
        ]
    },
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_a_png_with_a_broken_chunk_is_refused(name: str) -> None:
    check_whole(png_of([HEAD, DRAWN, END]), "png")
    with pytest.raises(BrokenImage):
        check_whole(png_of(BROKEN_CHUNKS[name]), "png")


@pytest.mark.parametrize("name", [each for each in WHOLE if each.startswith("PNG")])
def test_any_changed_byte_of_a_png_is_refused(name: str) -> None:
    for at in range(0, len(WHOLE[name]), 5):
        content = bytearray(WHOLE[name])
        content[at] ^= 0x55
        with pytest.raises(BrokenImage):
            check_whole(bytes(content), "png")


JPEG = WHOLE["JPEG, RGB"]
SOF, SOS, DQT = (JPEG.index(bytes((0xFF, marker))) for marker in (0xC0, 0xDA, 0xDB))
SCAN = SOS + 2 + struct.unpack_from(">H", JPEG, SOS + 2)[0]


def replaced(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


BROKEN_JPEGS: Mapping[str, bytes] = {
    "no SOI": JPEG[2:],
    "SOI twice": JPEG[:2] + JPEG,
    "no EOI": JPEG[:-2],
    "EOI at once": JPEG[:2] + b"\xff\xd9",
    "no SOF": replaced(JPEG, SOF, b"\xff\xe5"),
    "SOF twice": JPEG[:SOF] + JPEG[SOF : SOF + 19] + JPEG[SOF:],
    "no SOS": JPEG[:SOS] + b"\xff\xd9",
    "no DQT": JPEG.replace(b"\xff\xdb", b"\xff\xe5"),
    "nothing in the scan": JPEG[:SCAN] + b"\xff\xd9",
    "a segment's length beyond the end": replaced(JPEG, DQT + 2, b"\xff\xff"),
    "a segment's length of one": replaced(JPEG, DQT + 2, b"\x00\x01"),
    "bytes between segments": JPEG[:DQT] + b"\0\0" + JPEG[DQT:],
    "lossless": replaced(JPEG, SOF, b"\xff\xc3"),
    "arithmetic": replaced(JPEG, SOF, b"\xff\xc9"),
    "twelve bits": replaced(JPEG, SOF + 4, b"\x0c"),
    "no height": replaced(JPEG, SOF + 5, b"\0\0"),
    "no width": replaced(JPEG, SOF + 7, b"\0\0"),
    "two components": replaced(JPEG, SOF + 9, b"\x02"),
    "a restart marker between segments": JPEG[:DQT] + b"\xff\xd0" + JPEG[DQT:],
}


@pytest.mark.parametrize("name", BROKEN_JPEGS)
def test_a_jpeg_with_a_broken_marker_is_refused(name: str) -> None:
    with pytest.raises(BrokenImage):
        check_whole(BROKEN_JPEGS[name], "jpeg")


LOSSY, LOSSLESS, EXTENDED = WHOLE["WebP, lossy"], WHOLE["WebP, lossless"], WHOLE["WebP, metadata"]


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


BROKEN_WEBPS: Mapping[str, bytes] = {
    "no RIFF": b"RIFX" + LOSSY[4:],
    "no WEBP": replaced(LOSSY, 8, b"WAVE"),
    "the container longer than the bytes": replaced(LOSSY, 4, struct.pack("<I", len(LOSSY))),
    "the container ends in a chunk": replaced(LOSSY, 4, struct.pack("<I", len(LOSSY) - 10)),
    "a chunk longer than the container": replaced(LOSSY, 16, struct.pack("<I", len(LOSSY))),
    "no chunk": riff(),
    "no pixels": riff(b"EXIF" + struct.pack("<I", 2) + b"ab"),
    "pixels twice": riff(LOSSY[12:], LOSSY[12:]),
    "no key frame": replaced(LOSSY, 20, bytes((LOSSY[20] | 1,))),
    "no start code": replaced(LOSSY, 23, b"\0"),
    "the first partition longer than the frame": replaced(LOSSY, 21, b"\xff\xff"),
    "no signature": replaced(LOSSLESS, 20, b"\0"),
    "another version": replaced(LOSSLESS, 24, bytes((LOSSLESS[24] | 0x20,))),
    "animated": replaced(EXTENDED, 20, bytes((EXTENDED[20] | 2,))),
    "another canvas": replaced(EXTENDED, 24, b"\x10"),
}


@pytest.mark.parametrize("name", BROKEN_WEBPS)
def test_a_webp_with_a_broken_container_is_refused(name: str) -> None:
    with pytest.raises(BrokenImage):
        check_whole(BROKEN_WEBPS[name], "webp")
