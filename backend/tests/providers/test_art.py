"""The stub's image: of exact size, deterministic, legible, and drawn for every text."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from io import BytesIO
from pathlib import Path

import pytest
from app.core.blobs import Blob
from app.providers.stub.art import GLYPHS, Colour, Palette, draw_png
from app.providers.stub.editing import draw_edit_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageFont

BACKEND = Path(__file__).parents[2]
SENTENCE = "an astronaut riding a horse on the moon, oil painting"
ANY_SIDE = st.sampled_from([64, 65, 97, 200, 430])
AWKWARD = {
    "one letter": "a",
    "only spaces": " \t\n ",
    "only control characters": "\x00\x01\x1b\x7f",
    "only zero-width characters": "\u200b\u200d\ufeff",
    "only combining marks": "\u0301\u0301\u0302",
    "only punctuation": "?!...,;:-" * 40,
    "one word of 4,000 letters": "banana" * 666 + "bana",
    "4,000 emoji": "🍌" * 4_000,
    "an emoji of several": "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 1️⃣",
    "Chinese": "一只可爱的香蕉在月球上骑马。油画风格",
    "Arabic": "موزة لطيفة على سطح القمر",
    "Latin with accents": "Ein süßer Bär im Café \u2013 naïve Łódź",
    "letters that come apart into many": "\ufdfa" * 100,
    "half of a surrogate pair": "banana \ud83c",
    "unassigned characters": "\U0003fffd\ue000",
    "lines": "first\nsecond\r\nthird\u2028fourth",
}


def decoded(png: bytes) -> Image.Image:
    with Image.open(BytesIO(png), formats=["PNG"]) as unread:
        unread.verify()
    with Image.open(BytesIO(png), formats=["PNG"]) as opened:
        return opened.convert("RGB")


def luminance(colour: Colour) -> float:
    """WCAG 2.2, relative luminance."""
    light = (c / 255 for c in colour)
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in light)
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def contrast(one: Colour, other: Colour) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (64, 2048), (2048, 64), (512, 512), (1024, 1024), (1536, 640), (333, 1001), (2048, 2048)],
)
def test_the_image_is_a_png_of_exactly_the_requested_size(width: int, height: int) -> None:
    assert decoded(draw_png(SENTENCE, width=width, height=height)).size == (width, height)


def test_same_arguments_give_the_same_bytes() -> None:
    assert draw_png(SENTENCE, width=200, height=120) == draw_png(SENTENCE, width=200, height=120)


def test_same_arguments_give_the_same_bytes_in_another_process() -> None:
    prompt = "süße 猫 🍌 banana"
    program = (
        "import hashlib, sys; from app.core.blobs import Blob; from app.providers.stub.art import draw_png;"
        "from app.providers.stub.editing import draw_edit_png;"
        "drawn = draw_png(sys.argv[1], width=200, height=300);"
        "edited = draw_edit_png(sys.argv[1], [Blob(drawn)] * 3, width=300, height=200);"
        "print(hashlib.sha256(drawn + edited).hexdigest())"
    )
    command = [sys.executable, "-X", "utf8", "-c", program, prompt]
    there = subprocess.run(command, cwd=BACKEND, capture_output=True, text=True, check=True).stdout.strip()
    drawn = draw_png(prompt, width=200, height=300)
    assert there == hashlib.sha256(drawn + draw_edit_png(prompt, [Blob(drawn)] * 3, width=300, height=200)).hexdigest()


def test_concurrent_threads_draw_the_same_bytes_as_one() -> None:
    prompts = [f"{number} bananas 🍌" for number in range(16)]
    alone = [draw_png(prompt, width=160, height=160) for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda prompt: draw_png(prompt, width=160, height=160), prompts)) == alone


def test_different_prompts_give_different_images() -> None:
    prompts = [f"banana number {number}" for number in range(30)]
    assert len({draw_png(prompt, width=96, height=96) for prompt in prompts}) == len(prompts)


def test_prompts_that_differ_after_the_last_visible_word_give_different_images() -> None:
    words = "banana " * 560
    one, other = (draw_png(words + ending, width=128, height=128) for ending in ("moon", "sun"))
    assert one != other


@pytest.mark.parametrize("prompt", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 700), (700, 64), (300, 200)])
def test_awkward_text_is_drawn_at_every_shape(prompt: str, width: int, height: int) -> None:
    assert decoded(draw_png(prompt, width=width, height=height)).size == (width, height)


@settings(max_examples=25, deadline=None)
@given(prompt=st.text(st.characters(), min_size=1, max_size=300), width=ANY_SIDE, height=ANY_SIDE)
def test_any_unicode_is_drawn_at_any_size(prompt: str, width: int, height: int) -> None:
    assert decoded(draw_png(prompt, width=width, height=height)).size == (width, height)


def test_every_letter_that_is_drawn_is_in_the_font() -> None:
    font = ImageFont.load_default(40)
    formless = bytes(font.getmask("\U0010fffd"))
    assert [glyph for glyph in sorted(GLYPHS) if bytes(font.getmask(glyph)) == formless] == []


def test_accents_and_dashes_are_written_in_letters_of_the_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.providers.stub.art.Palette", lambda _: Palette("one palette for both"))
    plain = draw_png("Ein susser Bar im Cafe - naive Lodz", width=500, height=300)
    assert draw_png("Ein süßer Bär im Café \u2013 naïve Łódź", width=500, height=300) == plain


def test_words_have_a_contrast_of_at_least_four_and_a_half_for_every_prompt() -> None:
    for palette in (Palette(f"prompt {number}") for number in range(200)):
        for letters in (palette.text, palette.label):
            assert min(contrast(letters, ground) for ground in palette.ground) >= 4.5


@pytest.mark.parametrize("prompt", ["A cute banana", SENTENCE, f"{SENTENCE}, " * 6, "banana" * 600])
@pytest.mark.parametrize(("width", "height"), [(512, 512), (900, 600), (2048, 600), (600, 1200)])
def test_words_are_drawn_on_the_ground_alone(prompt: str, width: int, height: int) -> None:
    image, palette = decoded(draw_png(prompt, width=width, height=height)), Palette(prompt)
    strangers = ImageChops.difference(image, Image.new("RGB", image.size, palette.text)).split()
    distance = reduce(ImageChops.lighter, strangers)
    words = distance.point(lambda level: 0 if level else 255).getbbox()
    assert words
    left, top, right, _ = words
    for x in range(left, right):
        colour = image.getpixel((x, top - 3))
        assert isinstance(colour, tuple)
        assert contrast((colour[0], colour[1], colour[2]), palette.text) >= 4.5
