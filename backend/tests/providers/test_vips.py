"""libvips decodes PNGs and scales pixels as Pillow does, and does nothing else."""

import sys
from io import BytesIO
from pathlib import Path

import pytest
from _libvips import lib
from app.providers import vips
from PIL import Image as Pillow
from PIL import ImageChops, ImageStat
from tests.standins.gemini import image_bytes, with_damaged_pixels

SIZE = 191, 127
WHOLE_BOX = 0, 0, *SIZE
MEAN_DIFFERENCE_MAX = 1.0
"""Of 255, for each sample: both filter by Lanczos, but round apart."""


def gradient(mode: str) -> Pillow.Image:
    return Pillow.merge(mode, [Pillow.radial_gradient("L").rotate(90 * n).resize(SIZE) for n in range(len(mode))])


def encoded(image: Pillow.Image, kind: str) -> bytes:
    content = BytesIO()
    image.save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("box", [WHOLE_BOX, (3, 5, 150, 127)])
def test_a_png_has_the_pixels_that_pillow_decodes(mode: str, box: vips.Box) -> None:
    image = gradient(mode)
    decoded = vips.decode_png(encoded(image, "PNG"), mode, box, (box[2] - box[0], box[3] - box[1]))
    assert (decoded.mode, decoded.tobytes()) == (mode, image.crop(box).tobytes())


@pytest.mark.parametrize("smaller", [(95, 63), (190, 20), (7, 127), (64, 43)])
@pytest.mark.parametrize("mode", ["RGB", "RGBa"])
def test_pixels_are_scaled_down_as_by_pillow(mode: str, smaller: tuple[int, int]) -> None:
    image = gradient(mode.upper()).convert(mode)
    scaled, expected = (
        Pillow.frombytes(mode.upper(), smaller, each.tobytes())
        for each in (vips.shrink(image, smaller), image.resize(smaller, Pillow.Resampling.LANCZOS))
    )
    assert max(ImageStat.Stat(ImageChops.difference(scaled, expected)).mean) < MEAN_DIFFERENCE_MAX


def test_a_png_is_scaled_while_it_is_decoded_as_it_is_afterwards() -> None:
    image = gradient("RGB")
    at_once = vips.decode_png(encoded(image, "PNG"), "RGB", (9, 0, 180, 120), (50, 77))
    assert at_once.tobytes() == vips.shrink(image.crop((9, 0, 180, 120)), (50, 77)).tobytes()


NOT_PNG = {
    **{kind: encoded(gradient("RGB"), kind) for kind in ("JPEG", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")},
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='191' height='127'/>",
    "nothing": b"",
}
WHOLE = image_bytes(*SIZE)
REFUSED = {
    **NOT_PNG,
    "half": WHOLE[: len(WHOLE) // 2],
    "damaged": with_damaged_pixels(WHOLE),
    "smaller": image_bytes(SIZE[0], SIZE[1] - 1),
    "other bands": encoded(gradient("RGBA"), "PNG"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_but_a_whole_png_of_that_size_is_refused_and_not_quoted(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(vips.VipsError) as raised:
        vips.decode_png(REFUSED[kind], "RGB", WHOLE_BOX, SIZE)
    assert raised.value.args == ()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", NOT_PNG)
def test_libvips_has_no_loader_but_that_of_png(kind: str) -> None:
    assert not lib.vips_foreign_find_load_buffer(NOT_PNG[kind], len(NOT_PNG[kind]))
    assert lib.vips_foreign_find_load_buffer(WHOLE, len(WHOLE))


@pytest.mark.skipif(sys.platform != "linux", reason="the threads of a process are listed by Linux")
def test_it_works_in_the_calling_thread_alone() -> None:
    """A thread of libvips would have the priority of the pool that happened to start it."""
    before = set(Path("/proc/self/task").iterdir())  # of other libraries
    vips.shrink(vips.decode_png(WHOLE, "RGB", WHOLE_BOX, (64, 64)), (32, 32))
    names = [(task / "comm").read_text() for task in set(Path("/proc/self/task").iterdir()) - before]
    assert [name for name in names if "worker" in name] == []
