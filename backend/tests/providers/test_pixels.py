"""Bytes from outside: only whole, still pictures of three formats get through, and only with the asked pixels."""

import struct
import zlib
from io import BytesIO
from typing import Any, Literal

import pytest
from app.providers import Picture, Size
from app.providers.pixels import NotAPicture, OtherShape, convert, fit
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms
from tests.standins.gemini import picture_bytes

ASKED = Size(96, 64)
KINDS = ["PNG", "JPEG", "WEBP"]
FORMATS: dict[str, Literal["png", "jpeg", "webp"]] = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_the_asked_size_is_kept_byte_for_byte(kind: str) -> None:
    content = picture_bytes(96, 64, kind)
    picture = fit(content, ASKED)
    assert (picture.content, picture.media_type) == (content, Image.MIME[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawn", [(960, 640), (48, 32), (97, 64), (96, 65), (100, 64)])
def test_any_other_is_brought_to_exactly_the_asked_size_in_its_own_format(kind: str, drawn: tuple[int, int]) -> None:
    picture = fit(picture_bytes(*drawn, kind), ASKED)
    image = opened(picture.content)
    assert (image.size, image.format, picture.media_type) == ((96, 64), kind, Image.MIME[kind])


def test_what_is_cropped_is_little_and_taken_from_both_sides_alike() -> None:
    image = Image.new("RGB", (1264, 848), "white")
    image.paste("black", (632, 0, 1264, 848))
    scaled = opened(fit(encoded(image, "PNG"), Size(1536, 1024)).content)
    assert scaled.getpixel((764, 500)) == (255, 255, 255)
    assert scaled.getpixel((771, 500)) == (0, 0, 0)


@pytest.mark.parametrize("drawn", [(64, 64), (64, 96), (192, 64), (102, 64), (96, 68)])
def test_a_picture_that_would_lose_more_than_a_margin_is_refused(drawn: tuple[int, int]) -> None:
    with pytest.raises(OtherShape):
        fit(picture_bytes(*drawn), ASKED)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGB", "RGBA"])
def test_every_kind_of_pixels_is_scaled(mode: str) -> None:
    assert opened(fit(encoded(Image.new(mode, (192, 128)), "PNG"), ASKED).content).size == (96, 64)


def test_transparency_survives_scaling() -> None:
    scaled = opened(fit(encoded(Image.new("RGBA", (192, 128), (255, 0, 0, 0)), "PNG"), ASKED).content)
    assert scaled.mode == "RGBA"
    assert scaled.getchannel("A").getextrema() == (0, 0)


def test_printers_colours_become_screen_colours() -> None:
    assert opened(fit(encoded(Image.new("CMYK", (192, 128)), "JPEG"), ASKED).content).mode == "RGB"


def test_a_picture_that_is_stored_on_its_side_is_turned_first() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (64, 96), "red"), "JPEG", exif=exif)
    picture = fit(content, ASKED)
    assert opened(picture.content).size == (96, 64)
    assert opened(picture.content).getexif().get(0x0112) is None


def test_a_picture_that_is_stored_upside_down_is_turned_even_if_its_size_fits() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    image = Image.new("RGB", (96, 64), "white")
    image.paste("black", (0, 0, 96, 32))
    turned = opened(fit(encoded(image, "PNG", exif=exif), ASKED).content)
    assert [turned.getpixel((48, y)) for y in (10, 50)] == [(255, 255, 255), (0, 0, 0)]
    assert turned.getexif().get(0x0112) is None


def test_what_a_scaled_picture_carried_beside_its_pixels_is_left_behind() -> None:
    exif = Image.Exif()
    exif[0x010E] = "canary"
    for kind in KINDS:
        content = encoded(Image.new("RGB", (192, 128)), kind, exif=exif, comment="canary", xmp=b"canary")
        assert b"canary" in content
        assert b"canary" not in fit(content, ASKED).content


def test_the_colour_profile_survives_scaling() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in KINDS:
        content = encoded(Image.new("RGB", (192, 128)), kind, icc_profile=profile)
        assert opened(fit(content, ASKED).content).info["icc_profile"] == profile


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_on_pixels_is_exact(kind: str) -> None:
    content = picture_bytes(96, 64, kind)
    assert fit(content, ASKED, pixels_max=96 * 64).content == content
    with pytest.raises(NotAPicture):
        fit(content, ASKED, pixels_max=96 * 64 - 1)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def webp_that_claims(width: int, height: int) -> bytes:
    extended = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    lossless = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(100)
    body = (
        b"WEBPVP8X" + struct.pack("<I", 10) + extended + b"VP8L" + struct.pack("<I", len(lossless)) + lossless + b"\0"
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_that_claims(width: int, height: int) -> bytes:
    content = bytearray(picture_bytes(96, 64, "JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


BOMBS = [
    png_that_claims(60_000, 40_000),
    png_that_claims(12_000, 8_000),
    webp_that_claims(16_383, 10_922),
    jpeg_that_claims(60_000, 40_000),
    jpeg_that_claims(12_000, 8_000),
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_more_pixels_than_are_borne_are_refused_before_any_is_decoded(
    bomb: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", explode)
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile._open", explode)
    with pytest.raises(NotAPicture):
        fit(bomb, ASKED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_picture_is_refused_wherever_it_ends(kind: str) -> None:
    content = picture_bytes(96, 64, kind)
    for length in [*range(0, len(content) - 8, 97), len(content) - 8]:
        with pytest.raises(NotAPicture):
            fit(content[:length], ASKED)


def test_a_picture_that_is_damaged_in_the_middle_is_refused() -> None:
    content = bytearray(picture_bytes(96, 64))
    content[len(content) // 2] ^= 0x55
    with pytest.raises(NotAPicture):
        fit(bytes(content), ASKED)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animated_picture_is_refused(kind: str) -> None:
    frames = [Image.new("RGB", (96, 64), colour) for colour in ("red", "blue")]
    with pytest.raises(NotAPicture):
        fit(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), ASKED)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "ICNS", "JPEG2000", "MPO", "PDF", "AVIF"])
def test_any_other_format_is_refused(kind: str) -> None:
    images = [Image.new("RGB", (96, 64), "red"), Image.new("RGB", (96, 64), "blue")]
    more = {"save_all": True, "append_images": images[1:]} if kind == "MPO" else {}
    with pytest.raises(NotAPicture):
        fit(encoded(images[0], kind, **more), ASKED)


def test_no_other_decoder_sees_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("another decoder was asked")

    content = encoded(Image.new("P", (96, 64)), "GIF")
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile._open", explode)
    with pytest.raises(NotAPicture):
        fit(content, ASKED)


@pytest.mark.parametrize(
    "content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<!doctype html>", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(NotAPicture):
        fit(content, ASKED)


def test_an_error_shows_nothing_of_the_bytes() -> None:
    with pytest.raises(NotAPicture) as raised:
        fit(png_that_claims(96, 64) + b"canary", ASKED)
    assert raised.value.args == ()
    assert raised.value.__cause__ is raised.value.__context__ is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_in_the_wanted_format_already_is_left_alone(kind: str) -> None:
    picture = fit(picture_bytes(96, 64, kind), ASKED)
    assert convert(picture, FORMATS[kind]) is picture


@pytest.mark.parametrize("wanted", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_keeps_its_size_and_its_colours_in_another_format(kind: str, wanted: str) -> None:
    image = Image.new("RGB", (96, 64), (200, 100, 50))
    converted = convert(Picture(encoded(image, kind), Image.MIME[kind]), FORMATS[wanted])
    assert converted.media_type == Image.MIME[wanted]
    found = opened(converted.content)
    assert (found.size, found.format) == ((96, 64), wanted)
    off = ImageChops.difference(found.convert("RGB"), image)
    assert max(off.tobytes()) < 8


def test_what_is_seen_through_becomes_white_where_there_is_no_transparency() -> None:
    content = encoded(Image.new("RGBA", (96, 64), (255, 0, 0, 0)), "PNG")
    assert opened(convert(Picture(content, "image/png"), "jpeg").content).getpixel((9, 9)) == (255, 255, 255)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(KINDS), st.data())
def test_bytes_changed_at_random_are_a_picture_or_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    content = bytearray(picture_bytes(96, 64, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = fit(bytes(content), ASKED)
    except NotAPicture:
        return
    assert opened(picture.content).size == (96, 64)
