"""The stub's edit: what goes in is seen in it, and a mask bounds what changes."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import pytest
from app.core.blobs import Blob
from app.core.fair_queue import FairPool
from app.providers import ContentRefused, DrawRequest, InputImage, ProviderFailed, Size
from app.providers.stub import StubProvider
from app.providers.stub.editing import EditingProvider, draw_edit_png
from app.providers.stub.rehearsal import RehearsalProvider
from PIL import Image, ImageChops, ImageDraw
from tests.providers.remote import edit, soon
from tests.standins.gemini import image_bytes, with_damaged_pixels

WORDS = "make it blue"
RED, GREEN = (220, 30, 30), (30, 200, 60)


def png(image: Image.Image) -> bytes:
    encoded = BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def plain(colour: tuple[int, int, int], width: int = 300, height: int = 200) -> bytes:
    return png(Image.new("RGB", (width, height), colour))


def opened(content: bytes) -> Image.Image:
    with Image.open(BytesIO(content)) as image:
        return image.convert("RGB")


def edited(*images: bytes, mask: bytes | None = None, width: int = 300, height: int = 200) -> Image.Image:
    blobs = [Blob(each) for each in images]
    return opened(draw_edit_png(WORDS, blobs, None if mask is None else Blob(mask), width=width, height=height))


def has(image: Image.Image, colour: tuple[int, int, int], *, pixels: int) -> bool:
    colours = image.getcolors(image.width * image.height) or []
    return sum(number for number, found in colours if found == colour) >= pixels


@pytest.mark.parametrize("size", [(64, 64), (64, 2048), (2048, 64), (300, 200), (333, 1001)])
@pytest.mark.parametrize("number", [1, 2, 16])
def test_it_has_exactly_the_requested_size(size: tuple[int, int], number: int) -> None:
    assert edited(*[image_bytes(90, 60)] * number, width=size[0], height=size[1]).size == size


def test_each_argument_is_seen_in_it() -> None:
    mask = Image.new("RGBA", (300, 200), "black")
    mask.paste((0, 0, 0, 0), (0, 0, 300, 199))
    one = Blob(image_bytes(300, 200))
    other = Blob(png(opened(image_bytes(300, 200)).transpose(Image.Transpose.ROTATE_180)))
    drawn = [
        draw_edit_png(*arguments, width=430, height=430, model=model)
        for model in ("", "picture-pro")
        for prompt in (WORDS, "make it green")
        for arguments in ((prompt, [one]), (prompt, [other]), (prompt, [one, other]), (prompt, [one], Blob(png(mask))))
    ]
    assert len(set(drawn)) == len(drawn)


def test_the_first_image_fills_it_and_each_further_one_is_a_print_on_it() -> None:
    alone = edited(plain(RED))
    assert not has(alone, GREEN, pixels=1)
    for number in (1, 2, 15):
        prints = edited(plain(RED), *[plain(GREEN)] * number)
        assert has(prints, GREEN, pixels=200 * number)
    assert ImageChops.difference(prints, alone).getbbox() != (0, 0, 300, 200)


MASKS: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "a part": lambda draw: draw.rectangle((40, 30, 139, 129), fill=0),
    "an ellipse": lambda draw: draw.ellipse((20, 20, 280, 180), fill=0),
    "too little for words": lambda draw: draw.rectangle((10, 10, 12, 12), fill=0),
    "nothing": lambda draw: draw.point((0, 0), fill=255),
    "softly": lambda draw: draw.rectangle((40, 30, 139, 129), fill=100),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("scale", [1, 2], ids=["as large", "scaled"])
def test_where_the_mask_is_opaque_the_pixels_are_those_of_the_first_image(name: str, scale: int) -> None:
    source = opened(image_bytes(300 * scale, 200 * scale))
    alpha = Image.new("L", (300, 200), 255)
    MASKS[name](ImageDraw.Draw(alpha))
    mask = Image.new("RGBA", (300, 200), "black")
    mask.putalpha(alpha)
    mask = mask.resize(source.size, Image.Resampling.NEAREST)
    result = edited(png(source), plain(GREEN), mask=png(mask))
    unchanged = source.resize((300, 200), Image.Resampling.LANCZOS)
    difference = ImageChops.difference(result, unchanged)
    difference.paste((0, 0, 0), mask=alpha.point(lambda value: 255 if value < 255 else 0))
    assert difference.getbbox() is None
    changes = ImageChops.difference(result, unchanged).getbbox()
    assert (changes is None) is (name == "nothing")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_any_kind_of_pixels_goes_in(mode: str) -> None:
    image = Image.new("RGB", (300, 200), RED)
    kind = Image.new(mode, image.size) if mode == "I;16" else image.convert(mode)
    assert edited(png(kind)).size == (300, 200)


async def test_what_cannot_be_decoded_is_the_callers_mistake_and_a_rehearsal_fails_as_it_says(pool: FairPool) -> None:
    editing = EditingProvider(StubProvider(pool), pool)
    broken = InputImage(Blob(with_damaged_pixels(image_bytes(96, 64))), "png", Size(96, 64))
    for images in ([broken], [*edit(1).images, broken]):
        with pytest.raises(ProviderFailed) as raised:
            await editing.draw(DrawRequest(WORDS, Size(300, 200), images=images), deadline=soon())
        assert (raised.value.failure, raised.value.may_have_been_paid) == ("request", False)
    rehearsal = RehearsalProvider(editing)
    with pytest.raises(ContentRefused):
        await rehearsal.draw(edit(1, prompt="test:refuse"), deadline=soon())
    request = edit(2, prompt="test:refuse:1", place=1)
    assert await rehearsal.draw(request, deadline=soon()) == await editing.draw(replace(request), deadline=soon())
