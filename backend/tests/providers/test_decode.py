"""Decoding: only whole, still images of three formats are accepted, and they leave with the requested size."""

import struct
import zlib
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from app.core.images import IMAGE_FORMATS, ImageFormat
from app.providers import Image, Size
from app.providers.decode import InvalidImage, OtherShape, convert, fit, thumbnail
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageChops
from tests.providers.input_files import LARGE_PROFILE, PROFILE
from tests.standins.gemini import image_bytes, webp_without_pixels, with_damaged_pixels

REQUESTED = Size(96, 64)
FORMATS = {each.upper(): each for each in IMAGE_FORMATS}
KINDS = list(FORMATS)


def encoded(image: Pillow.Image, kind: str, **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def opened(content: bytes) -> Pillow.Image:
    image = Pillow.open(BytesIO(content))
    image.load()
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_the_requested_size_is_kept_byte_for_byte(kind: str) -> None:
    content = image_bytes(96, 64, kind)
    image = fit(content, REQUESTED)
    assert (image.content, image.media_type) == (content, Pillow.MIME[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawn", [(960, 640), (48, 32), (97, 64), (96, 65), (100, 64)])
def test_any_other_image_is_scaled_to_exactly_the_requested_size_in_its_own_format(
    kind: str, drawn: tuple[int, int]
) -> None:
    image = fit(image_bytes(*drawn, kind), REQUESTED)
    found = opened(image.content)
    assert (found.size, found.format, image.media_type) == ((96, 64), kind, Pillow.MIME[kind])


def test_the_crop_takes_the_same_small_margin_from_both_sides() -> None:
    image = Pillow.new("RGB", (1264, 848), "white")
    image.paste("black", (632, 0, 1264, 848))
    scaled = opened(fit(encoded(image, "PNG"), Size(1536, 1024)).content)
    assert scaled.getpixel((764, 500)) == (255, 255, 255)
    assert scaled.getpixel((771, 500)) == (0, 0, 0)


@pytest.mark.parametrize("drawn", [(64, 64), (64, 96), (192, 64), (102, 64), (96, 68)])
def test_an_image_that_would_lose_more_than_a_margin_is_refused(drawn: tuple[int, int]) -> None:
    with pytest.raises(OtherShape):
        fit(image_bytes(*drawn), REQUESTED)


def png_of(colours: int, bits: int, sample: bytes, *chunks: bytes) -> bytes:
    """A PNG of 192 x 128 equal pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 192, 128, bits, colours, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + sample * 192) * 128))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


GREY = (128, 128, 128)
PALETTE = chunk(b"PLTE", bytes((1, 2, 3, *GREY)))
PIXELS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "1": (encoded(Pillow.new("1", (192, 128), 1), "PNG"), (255, 255, 255)),
    "L": (png_of(0, 8, b"\x80"), GREY),
    "L, tRNS": (png_of(0, 8, b"\x80", chunk(b"tRNS", b"\0\x80")), (0, 0, 0, 0)),
    "LA": (png_of(4, 8, b"\x80\xff"), (*GREY, 255)),
    "I;16": (png_of(0, 16, b"\x80\x12"), GREY),
    "I;16, dark": (png_of(0, 16, b"\x01\xff"), (1, 1, 1)),
    "I;16, tRNS": (png_of(0, 16, b"\x80\x12", chunk(b"tRNS", b"\x80\x12")), (0, 0, 0, 0)),
    "LA of 16 bits": (png_of(4, 16, b"\x80\x12\xff\xff"), (*GREY, 255)),
    "P": (png_of(3, 8, b"\1", PALETTE), GREY),
    "P, tRNS": (png_of(3, 8, b"\1", PALETTE, chunk(b"tRNS", b"\xff\0")), (0, 0, 0, 0)),
    "RGB": (png_of(2, 8, bytes(GREY)), GREY),
    "RGB of 16 bits": (png_of(2, 16, b"\x80\x12" * 3), GREY),
    "RGBA": (png_of(6, 8, bytes((*GREY, 255))), (*GREY, 255)),
    "CMYK": (encoded(Pillow.new("CMYK", (192, 128), (0, 0, 0, 127)), "JPEG", quality=100), GREY),
    "L JPEG": (encoded(Pillow.new("L", (192, 128), 128), "JPEG", quality=100), GREY),
}


@pytest.mark.parametrize("kind", PIXELS)
def test_every_pixel_mode_keeps_its_colour_when_it_is_scaled_and_converted(kind: str) -> None:
    content, colour = PIXELS[kind]
    scaled = fit(content, REQUESTED)
    found = opened(scaled.content)
    assert (found.size, found.getpixel((48, 32))) == ((96, 64), colour)
    flat = opened(convert(fit(content, Size(192, 128)), "jpeg" if scaled.format == "png" else "png").content)
    assert flat.getpixel((48, 32)) == ((255, 255, 255) if colour[3:] == (0,) else colour[:3])


def test_transparency_survives_scaling() -> None:
    scaled = opened(fit(encoded(Pillow.new("RGBA", (192, 128), (255, 0, 0, 0)), "PNG"), REQUESTED).content)
    assert scaled.mode == "RGBA"
    assert scaled.getchannel("A").getextrema() == (0, 0)


def test_transparent_pixels_lend_no_colour() -> None:
    image = Pillow.new("RGBA", (191, 127), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 95, 127))
    small = opened(thumbnail(encoded(image, "PNG"), 64, "png").content)
    red, _, _, alpha = small.split()
    assert small.getchannel("A").getextrema() == (0, 255)
    assert max(r for r, a in zip(red.tobytes(), alpha.tobytes(), strict=True) if a > 9) < 9


def test_cmyk_becomes_rgb() -> None:
    assert opened(fit(encoded(Pillow.new("CMYK", (192, 128)), "JPEG"), REQUESTED).content).mode == "RGB"


def test_an_image_stored_on_its_side_is_rotated_first() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    content = encoded(Pillow.new("RGB", (64, 96), "red"), "JPEG", exif=exif)
    image = fit(content, REQUESTED)
    assert opened(image.content).size == (96, 64)
    assert opened(image.content).getexif().get(0x0112) is None


def test_an_image_stored_upside_down_is_rotated_even_if_its_size_fits() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 3
    image = Pillow.new("RGB", (96, 64), "white")
    image.paste("black", (0, 0, 96, 32))
    turned = opened(fit(encoded(image, "PNG", exif=exif), REQUESTED).content)
    assert [turned.getpixel((48, y)) for y in (10, 50)] == [(255, 255, 255), (0, 0, 0)]
    assert turned.getexif().get(0x0112) is None


def test_an_image_that_is_changed_loses_its_metadata() -> None:
    exif = Pillow.Exif()
    exif[0x010E] = "canary"
    for kind in KINDS:
        content = encoded(Pillow.new("RGB", (192, 128)), kind, exif=exif, comment="canary", xmp=b"canary")
        assert b"canary" in content
        assert b"canary" not in fit(content, REQUESTED).content
        for each in set(IMAGE_FORMATS) - {FORMATS[kind]}:
            assert b"canary" not in convert(Image(content, FORMATS[kind]), each).content
            assert b"canary" not in thumbnail(content, 192, each).content


@pytest.mark.parametrize("profile", [PROFILE, LARGE_PROFILE], ids=["small", "large"])
def test_the_colour_profile_survives_scaling(profile: bytes) -> None:
    for kind in KINDS:
        content = encoded(Pillow.new("RGB", (192, 128)), kind, icc_profile=profile)
        assert opened(fit(content, REQUESTED).content).info["icc_profile"] == profile


@pytest.mark.parametrize("image_format", IMAGE_FORMATS)
@pytest.mark.parametrize(
    ("drawn", "width", "size"),
    [((192, 128), 96, (96, 64)), ((192, 100), 64, (64, 33)), ((64, 96), 512, (64, 96)), ((2000, 5), 64, (64, 1))],
)
def test_a_thumbnail_has_the_width_and_the_shape_and_is_never_larger(
    drawn: tuple[int, int], width: int, size: tuple[int, int], image_format: ImageFormat
) -> None:
    for kind in KINDS:
        small = thumbnail(image_bytes(*drawn, kind), width, image_format)
        assert (small.format, opened(small.content).size) == (image_format, size)
        assert opened(small.content).format == image_format.upper()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGB", "RGBA"])
def test_every_pixel_mode_has_a_thumbnail(mode: str) -> None:
    content = encoded(Pillow.new(mode, (192, 128)), "PNG")
    assert {opened(thumbnail(content, 64, each).content).size for each in IMAGE_FORMATS} == {(64, 43)}


def test_a_thumbnail_shows_what_the_image_shows() -> None:
    image = Pillow.new("RGB", (200, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    small = opened(thumbnail(encoded(image, "PNG"), 64, "png").content)
    assert [small.getpixel((x, 16)) for x in (8, 56)] == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize("kind", KINDS)
def test_half_an_image_has_no_thumbnail_and_the_error_quotes_nothing(kind: str) -> None:
    content = image_bytes(192, 128, kind)
    with pytest.raises(InvalidImage) as refused:
        thumbnail(content[: len(content) // 2], 64, "png")
    assert refused.value.__context__ is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_on_pixels_is_exact(kind: str) -> None:
    content = image_bytes(96, 64, kind)
    assert fit(content, REQUESTED, pixels_max=96 * 64).content == content
    with pytest.raises(InvalidImage):
        fit(content, REQUESTED, pixels_max=96 * 64 - 1)


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
    content = bytearray(image_bytes(96, 64, "JPEG"))
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
def test_too_many_pixels_are_refused_before_any_is_decoded(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", explode)
    monkeypatch.setattr("app.providers.vips.decode_png", explode)
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile._open", explode)
    with pytest.raises(InvalidImage):
        fit(bomb, REQUESTED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_image_is_refused_wherever_it_ends(kind: str) -> None:
    content = image_bytes(96, 64, kind)
    for length in [*range(0, len(content) - 8, 97), len(content) - 8]:
        with pytest.raises(InvalidImage):
            fit(content[:length], REQUESTED)


def test_an_image_damaged_in_the_middle_is_refused() -> None:
    content = bytearray(image_bytes(96, 64))
    content[len(content) // 2] ^= 0x55
    with pytest.raises(InvalidImage):
        fit(bytes(content), REQUESTED)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animated_image_is_refused(kind: str) -> None:
    frames = [Pillow.new("RGB", (96, 64), colour) for colour in ("red", "blue")]
    with pytest.raises(InvalidImage):
        fit(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), REQUESTED)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "ICNS", "JPEG2000", "MPO", "PDF", "AVIF"])
def test_any_other_format_is_refused(kind: str) -> None:
    images = [Pillow.new("RGB", (96, 64), "red"), Pillow.new("RGB", (96, 64), "blue")]
    more = {"save_all": True, "append_images": images[1:]} if kind == "MPO" else {}
    with pytest.raises(InvalidImage):
        fit(encoded(images[0], kind, **more), REQUESTED)


def test_the_decoders_of_other_formats_are_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("another decoder was asked")

    content = encoded(Pillow.new("P", (96, 64)), "GIF")
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile._open", explode)
    with pytest.raises(InvalidImage):
        fit(content, REQUESTED)


@pytest.mark.parametrize(
    "content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<!doctype html>", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_bytes_that_are_no_image_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidImage):
        fit(content, REQUESTED)


UNDECODABLE: dict[ImageFormat, bytes] = {
    "png": with_damaged_pixels(image_bytes(192, 128)),
    "webp": webp_without_pixels(192, 128),
}


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_damaged_pixels_of_a_whole_structure_are_found_where_they_must_change(kind: ImageFormat) -> None:
    content = UNDECODABLE[kind]
    kept = fit(content, Size(192, 128))
    assert kept.content == content
    changes = partial(fit, content, REQUESTED), partial(thumbnail, content, 64, "jpeg"), partial(convert, kept, "jpeg")
    for change in changes:
        with pytest.raises(InvalidImage) as raised:
            change()
        assert raised.value.__context__ is None


def test_an_error_does_not_quote_the_bytes() -> None:
    with pytest.raises(InvalidImage) as raised:
        fit(png_that_claims(96, 64) + b"canary", REQUESTED)
    assert raised.value.args == ()
    assert raised.value.__cause__ is raised.value.__context__ is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_already_in_the_requested_format_is_unchanged(kind: str) -> None:
    image = fit(image_bytes(96, 64, kind), REQUESTED)
    assert convert(image, FORMATS[kind]) is image
    assert convert(replace(image, compression=40), FORMATS[kind], 40).content == image.content


def test_the_higher_the_compression_of_a_jpeg_or_webp_the_larger_and_a_png_has_none() -> None:
    noise = Pillow.effect_noise((96, 64), 90).convert("RGB")
    for wanted in ("jpeg", "webp"):
        for kind in KINDS:  # its own format among them
            image = Image(encoded(noise, kind), FORMATS[kind])
            converted = [convert(image, wanted, compression) for compression in (0, 40, 80, 100)]
            sizes = [len(each.content) for each in converted]
            assert sizes == sorted(set(sizes))
            assert [each.compression for each in converted] == [0, 40, 80, 100]
            assert opened(converted[0].content).format == wanted.upper()
    png = Image(encoded(noise, "PNG"), "png")
    assert convert(png, "png", 40) is png


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_stays_as_it_is_is_not_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("decoded")

    content = image_bytes(96, 64, kind)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", explode)
    monkeypatch.setattr("app.providers.vips.decode_png", explode)
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", explode)
    assert fit(content, REQUESTED).content == content


@pytest.mark.parametrize("wanted", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_conversion_keeps_size_and_colours(kind: str, wanted: str) -> None:
    image = Pillow.new("RGB", (96, 64), (200, 100, 50))
    converted = convert(Image(encoded(image, kind), FORMATS[kind]), FORMATS[wanted])
    assert converted.media_type == Pillow.MIME[wanted]
    found = opened(converted.content)
    assert (found.size, found.format) == ((96, 64), wanted)
    off = ImageChops.difference(found.convert("RGB"), image)
    assert max(off.tobytes()) < 8


def test_transparent_pixels_become_white_in_a_jpeg() -> None:
    content = encoded(Pillow.new("RGBA", (96, 64), (255, 0, 0, 0)), "PNG")
    assert opened(convert(Image(content, "png"), "jpeg").content).getpixel((9, 9)) == (255, 255, 255)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(KINDS), st.data())
def test_randomly_changed_bytes_are_an_image_or_refused(kind: str, data: st.DataObject) -> None:
    content = bytearray(image_bytes(96, 64, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = fit(bytes(content), REQUESTED)
        converted = convert(image, "png" if kind != "PNG" else "webp")
    except InvalidImage:
        return
    with Pillow.open(BytesIO(image.content)) as unread:
        assert unread.size == opened(converted.content).size == (96, 64)
