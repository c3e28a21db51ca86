"""Images that callers send: a table of files, and what becomes of each."""

import struct
import sys
import tracemalloc
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from app.core.bounds import IMAGE_BYTES_MAX
from app.core.images import IMAGE_FORMATS, ImageFormat
from app.core.processes import start
from app.providers import Size, heif_program, intake
from app.providers.containers.profiles import PROFILE_BYTES_MAX
from app.providers.intake import (
    InputLimits,
    InvalidInput,
    TakenIn,
    bring_below,
    fit_mask,
    take_in,
    take_in_mask,
)
from app.providers.structure import check_whole
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageCms
from tests.providers.heif_files import SIZE
from tests.providers.input_files import (
    ANIMATIONS,
    CANARY,
    COLOURS,
    HEIC,
    JPEG,
    LARGE_PROFILE,
    PNG,
    PROFILE,
    TALKING_PROFILE,
    WEBP,
    chunk,
    encoded,
    picture,
    rgb_profile,
    see_through,
)
from tests.providers.inputs_refused import ANIMATED, BROKEN, REFUSED, WHOLE
from tests.providers.inputs_taken import TAKEN

GREYS = {letter: (Pillow.new("RGB", (1, 1), each).convert("L").tobytes()[0],) * 3 for letter, each in COLOURS.items()}
GREYS |= {"W": (255, 255, 255)}
GREY_RANGE, OFF_MAX = 9, 75
"""How far the samples of a grey pixel are apart, and those of a pixel from its colour's, all three together."""


def opened(content: bytes) -> Pillow.Image:
    with Pillow.open(BytesIO(content)) as image:
        image.load()
        return image


def corners_of(image: Pillow.Image) -> str:
    """The letter of the colour in each corner, or of its grey; a space where nothing is seen."""
    pixels, right, bottom = image.convert("RGBA"), image.width - 4, image.height - 4
    return "".join(letter_of(pixels.crop((x, y, x + 1, y + 1)).tobytes()) for y in (3, bottom) for x in (3, right))


def letter_of(pixel: bytes) -> str:
    *colour, alpha = pixel
    if alpha == 0:
        return " "
    known = GREYS if max(colour) - min(colour) < GREY_RANGE else COLOURS
    off = {letter: sum(abs(a - b) for a, b in zip(colour, each, strict=True)) for letter, each in known.items()}
    nearest = min(off, key=off.__getitem__)
    assert off[nearest] < OFF_MAX, pixel
    return nearest


@cache
def taken(name: str) -> TakenIn:
    """What a file of the table becomes. HEIC and AVIF are decoded in this process, which is faster."""

    def decode_here(content: bytes) -> bytes:
        output = BytesIO()
        heif_program.convert(content, output)
        return output.getvalue()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "decode_heif", decode_here)
        return take_in(TAKEN[name].content, first_frame=TAKEN[name].first_frame)


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders fail the test."""

    def explode(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    for decoder in ("PIL.Image.open", "app.providers.intake.decode_heif", "app.providers.vips.decode_png"):
        monkeypatch.setattr(decoder, explode)


@pytest.mark.parametrize("name", TAKEN)
def test_a_file_becomes_a_still_upright_image_of_a_format_that_providers_take(name: str) -> None:
    expected, found = TAKEN[name], taken(name)
    image = opened(found.content)
    assert (found.format, found.size, image.mode) == (expected.format, expected.size, expected.mode)
    assert (image.format, image.size, getattr(image, "n_frames", 1)) == (found.format.upper(), found.size, 1)
    if expected.corners:
        assert corners_of(image) == expected.corners


PARTS: Mapping[ImageFormat, set[bytes]] = {
    "png": {b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"gAMA", b"cHRM", b"IDAT", b"IEND"},
    "jpeg": {bytes((marker,)) for marker in (0xE0, 0xE2, 0xEE, 0xDB, 0xC4, 0xC0, 0xC2, 0xDD, 0xDA, 0xD9)},
    "webp": {b"VP8X", b"ICCP", b"ALPH", b"VP8 ", b"VP8L"},
}
"""All that an image may consist of that is sent on."""


def parts_of(image: TakenIn) -> Iterator[tuple[bytes, int]]:
    """The name of each part, and where it ends."""
    content, at = image.content, {"png": 8, "jpeg": 2, "webp": 12}[image.format]
    while at < len(content):
        if image.format == "png":
            (length,), name = struct.unpack_from(">I", content, at), content[at + 4 : at + 8]
            at += 12 + length
        elif image.format == "webp":
            name, (length,) = content[at : at + 4], struct.unpack_from("<I", content, at + 4)
            at += 8 + length + length % 2
        else:
            name = content[at + 1 : at + 2]
            at += 2 if name == b"\xd9" else 2 + struct.unpack_from(">H", content, at + 2)[0]
            if name == b"\xda":  # up to the marker behind the scan
                at = min(each for each in range(at, len(content)) if content[each] == 255 and content[each + 1])
        yield name, at


@pytest.mark.parametrize("name", TAKEN)
def test_places_names_and_bytes_behind_the_end_are_not_in_it(name: str) -> None:
    found = taken(name)
    parts, image = list(parts_of(found)), opened(found.content)
    assert {part for part, _ in parts} <= PARTS[found.format]
    assert parts[-1][1] == len(found.content)
    words = found.content + image.info.get("icc_profile", b"")
    for spelling in (
        CANARY,
        CANARY[:6],
        "Canary".encode("utf-16-be"),
        "Canary".encode("utf-16-le"),
        b"<?php",
        b"<html",
    ):
        assert spelling not in words
    assert not image.getexif()
    assert image.info.keys() <= {"icc_profile", "jfif", "jfif_version", "jfif_unit", "jfif_density", "adobe"} | {
        *("adobe_transform", "transparency", "gamma", "progressive", "progression", "loop", "background", "timestamp"),
        *("duration",),
    }


def test_the_files_with_metadata_have_what_is_looked_for() -> None:
    talking = [each.content for name, each in TAKEN.items() if "metadata everywhere" in name]
    assert [content.count(CANARY) >= len(("EXIF", "XMP", "more")) for content in talking] == [True] * 6


@pytest.mark.parametrize("name", [name for name, each in TAKEN.items() if "profile" in name])
def test_a_colour_profile_keeps_its_colours_and_loses_its_words(name: str) -> None:
    profile = opened(taken(name).content).info["icc_profile"]
    assert "Canary".encode("utf-16-be") in TALKING_PROFILE
    lab = ImageCms.createProfile("LAB")
    expected, found = (
        ImageCms.buildTransform(BytesIO(each), lab, "RGB", "LAB").apply(picture()).tobytes()
        for each in (PROFILE, profile)
    )
    assert found == expected
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(profile))).strip() == "RGB"


@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_a_colour_profile_is_kept_where_tags_share_a_place_and_dropped_where_they_overlap(kind: ImageFormat) -> None:
    curve = b"curv" * 10_000
    shared = {each: range(len(curve)) for each in (b"rTRC", b"gTRC", b"bTRC")}
    overlapping = {each: range(4 * number, len(curve)) for number, each in enumerate(shared)}
    for tags, is_kept in ((shared, True), (overlapping, False)):
        sent = encoded(picture(), kind.upper(), icc_profile=rgb_profile(tags, curve))
        found = opened(take_in(sent, first_frame=False).content).info.get("icc_profile", b"")
        assert (curve in found) is is_kept
        assert len(found) <= len(curve) + 1000


def test_a_colour_profile_is_never_larger_than_a_png_may_have() -> None:
    largest = PROFILE_BYTES_MAX - len(rgb_profile({b"A2B0": range(0)}, b""))
    for size, is_kept in ((largest - 1000, True), (largest, False)):  # with the texts that are added it is too large
        profile = rgb_profile({b"A2B0": range(size)}, b"mft2".ljust(size, b"\0"))
        found = opened(take_in(encoded(picture(), "PNG", icc_profile=profile), first_frame=False).content)
        assert ("icc_profile" in found.info) is is_kept


@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_an_image_with_a_large_colour_profile_can_be_scaled_and_keeps_it(kind: ImageFormat) -> None:
    taken = take_in(encoded(picture(), kind.upper(), icc_profile=LARGE_PROFILE), first_frame=False)
    for image_format in IMAGE_FORMATS:
        small = bring_below(taken, InputLimits(20, IMAGE_BYTES_MAX, [image_format]))
        assert bytes(1_000_000) in opened(small.content).info["icc_profile"]


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("content", [PNG, JPEG, WEBP], ids=IMAGE_FORMATS)
def test_an_upright_image_without_metadata_is_not_decoded_and_keeps_its_bytes(content: bytes) -> None:
    assert take_in(content, first_frame=False).content == content


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_file_is_refused_with_a_sentence(name: str) -> None:
    content, sentence = REFUSED[name]
    with pytest.raises(InvalidInput) as refused:
        take_in(content, first_frame=False)
    assert str(refused.value) == sentence
    assert refused.value.__context__ is None, "an error of a decoder may quote the bytes"


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("name", [each for each in REFUSED if each.startswith("bomb")])
def test_a_bomb_is_refused_before_a_decoder_sees_it(name: str) -> None:
    with pytest.raises(InvalidInput):
        take_in(REFUSED[name][0], first_frame=True)


def test_a_zlib_bomb_is_inflated_no_further_than_a_profile_can_be() -> None:
    bomb = PNG[:33] + chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(6 * PROFILE_BYTES_MAX))) + PNG[33:]
    tracemalloc.start()
    try:
        take_in(bomb, first_frame=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * PROFILE_BYTES_MAX


def test_a_file_of_more_bytes_than_the_bound_is_not_looked_at() -> None:
    with pytest.raises(InvalidInput, match=r"^The image has more than 50 MiB$"):
        take_in(PNG + bytes(IMAGE_BYTES_MAX), first_frame=False)
    assert take_in(PNG + bytes(IMAGE_BYTES_MAX - len(PNG)), first_frame=False).content == PNG


@pytest.mark.parametrize(("name", "expected"), [("HEIC", "jpeg"), ("AVIF, first of a sequence", "jpeg")])
def test_heic_and_avif_are_decoded_in_a_process_of_their_own(name: str, expected: str) -> None:
    assert take_in(TAKEN[name].content, first_frame=True) == taken(name)
    assert taken(name).format == expected


def test_a_decoder_that_breaks_down_ends_its_process_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os; os.abort()")
    monkeypatch.setattr(heif_program, "__file__", str(program))
    with pytest.raises(InvalidInput, match=f"^{BROKEN}$"):
        take_in(HEIC["colour"], first_frame=False)


def test_the_process_of_a_decoder_has_bounds_and_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = f"""
import os, resource, runpy
try:
    runpy.run_path({heif_program.__file__!r}, run_name="__main__")
except Exception as broken:
    print(resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CPU)[0], "SECRET" in os.environ)
"""
    monkeypatch.setenv("SECRET", "secret")
    with start([sys.executable, "-I", "-c", looking], stdin=DEVNULL, stdout=PIPE) as program:
        assert program.communicate()[0].split() == [b"2147483648", b"30", b"False"]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([*WHOLE, *(each for each in TAKEN if "metadata" in each or "first" in each)]), st.data())
def test_a_changed_file_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[name] if name in WHOLE else TAKEN[name].content)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "decode_heif", lambda _: PNG)  # of the process nothing but a result or its end is seen
        try:
            found = take_in(bytes(content), first_frame=data.draw(st.booleans()))
        except InvalidInput:
            return
    check_whole(found.content, found.format)


BRIGHT = see_through().getchannel("A").point([255] + [0] * 255)
"""A mask without transparency: white in the corner that `see_through` leaves out."""
MASKS: Mapping[str, bytes] = {
    "transparent": encoded(see_through(), "PNG"),
    "transparent, grey": encoded(see_through("LA"), "PNG"),
    "transparent, palette": encoded(see_through().quantize(), "PNG"),
    "transparent WebP": encoded(see_through(), "WEBP"),
    "transparent HEIC": HEIC["alpha"],
    "black and white": encoded(BRIGHT, "PNG"),
    "black and white, of one bit": encoded(BRIGHT.convert("1"), "PNG"),
    "black and white, as a canvas saves it": encoded(BRIGHT.convert("RGBA"), "PNG"),
    "black and white JPEG": encoded(BRIGHT, "JPEG", quality=50),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_becomes_a_png_that_is_transparent_where_the_image_may_change(name: str) -> None:
    mask = take_in_mask(MASKS[name], Size(*SIZE))
    for size in (SIZE, (48, 32)):
        fitted = fit_mask(mask, Size(*size))
        image = opened(fitted.content)
        half = size[0] // 2, size[1] // 2
        assert (fitted.format, fitted.size, image.format, image.mode, image.size) == ("png", size, "PNG", "RGBA", size)
        assert image.getchannel("A").crop((*half, *size)).getextrema() == (0, 0)
        assert image.getchannel("A").histogram()[255] == 3 * half[0] * half[1]
        assert image.convert("RGB").getextrema() == ((0, 0),) * 3, "nothing but the mask leaves the house"


NOTHING_CHANGES = "The mask lets nothing change: it must be transparent, or white, where the image may change"
REFUSED_MASKS: Mapping[str, tuple[bytes, str]] = {
    "all black": (encoded(Pillow.new("L", SIZE), "PNG"), NOTHING_CHANGES),
    "all opaque": (encoded(Pillow.new("RGBA", SIZE, "black"), "PNG"), NOTHING_CHANGES),
    "too small": (
        encoded(see_through().resize((48, 32)), "PNG"),
        "The mask has 48x32 pixels, and the first image 96x64: they must be equal",
    ),
    "turned": (
        encoded(see_through().transpose(Pillow.Transpose.ROTATE_90), "PNG"),
        "The mask has 64x96 pixels, and the first image 96x64: they must be equal",
    ),
    "animated": (ANIMATIONS["PNG"], ANIMATED),
    "damaged": (PNG[:-20], BROKEN),
}


@pytest.mark.parametrize("name", REFUSED_MASKS)
def test_any_other_mask_is_refused_with_a_sentence(name: str) -> None:
    content, sentence = REFUSED_MASKS[name]
    with pytest.raises(InvalidInput) as refused:
        take_in_mask(content, Size(*SIZE))
    assert str(refused.value) == sentence


NOISE = encoded(Pillow.effect_noise((300, 200), 90).convert("RGB"), "PNG")
BROUGHT: Mapping[str, tuple[bytes, InputLimits, ImageFormat, tuple[int, int], str]] = {
    "side": (encoded(picture(), "PNG"), InputLimits(48, 10_000, IMAGE_FORMATS), "png", (48, 32), "RGBY"),
    "side, JPEG": (JPEG, InputLimits(24, 10_000, IMAGE_FORMATS), "jpeg", (24, 16), "RGBY"),
    "side, palette": (encoded(picture("P"), "PNG"), InputLimits(48, 10_000, ["png"]), "png", (48, 32), "RGBY"),
    "side, grey": (encoded(picture("L"), "WEBP"), InputLimits(48, 10_000, ["webp"]), "webp", (48, 32), "RGBY"),
    "side, transparent": (encoded(see_through(), "WEBP"), InputLimits(48, 10_000, ["webp"]), "webp", (48, 32), "RGB "),
    "format": (WEBP, InputLimits(96, 10_000, ["png"]), "png", SIZE, "RGBY"),
    "format, nearest": (WEBP, InputLimits(96, 10_000, ["png", "jpeg"]), "jpeg", SIZE, "RGBY"),
    "format, transparent": (
        encoded(see_through(), "WEBP"),
        InputLimits(96, 9_000, ["jpeg", "png"]),
        "png",
        SIZE,
        "RGB ",
    ),
    "format, on white": (encoded(see_through(), "PNG"), InputLimits(96, 9_000, ["jpeg"]), "jpeg", SIZE, "RGBW"),
    "bytes": (NOISE, InputLimits(300, 60_000, IMAGE_FORMATS), "jpeg", (300, 200), ""),
}


@pytest.mark.parametrize("name", BROUGHT)
def test_an_image_is_brought_below_the_limits_of_a_route(name: str) -> None:
    content, limits, image_format, size, corners = BROUGHT[name]
    brought = bring_below(take_in(content, first_frame=False), limits)
    image = opened(brought.content)
    assert (brought.format, brought.size) == (image_format, size) == (str(image.format).lower(), image.size)
    assert len(brought.content) <= limits.bytes_max
    assert not corners or corners_of(image) == corners
    assert bring_below(brought, limits) is brought


def test_an_image_loses_pixels_where_nothing_else_makes_it_small_enough() -> None:
    brought = bring_below(take_in(NOISE, first_frame=False), InputLimits(300, 60_000, ["png"]))
    assert len(brought.content) <= 60_000
    assert 120 < opened(brought.content).width < 240


def test_an_image_that_is_scaled_keeps_its_colour_profile() -> None:
    taken = take_in(encoded(picture(), "PNG", icc_profile=PROFILE), first_frame=False)
    small = bring_below(taken, InputLimits(48, 10_000, IMAGE_FORMATS))
    assert opened(small.content).info["icc_profile"] == opened(taken.content).info["icc_profile"]


def test_an_image_that_would_vanish_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^The image cannot be made small enough for the model$"):
        bring_below(take_in(NOISE, first_frame=False), InputLimits(300, 500, IMAGE_FORMATS))
