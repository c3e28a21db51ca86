"""What the stub makes of images that go in: the first one in the prompt's colours, the others on it, and the words."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO

from PIL import Image as Pillow
from PIL import ImageChops, ImageFilter, ImageOps

from app.core.blobs import Blob
from app.core.errors import Unavailable
from app.core.fair_queue import FairPool
from app.core.images import IMAGE_FORMATS
from app.providers import DrawRequest, Image, NoFreeSlot, Provider, ProviderFailed, ProviderTimeout, Size
from app.providers.decode import InvalidImage
from app.providers.pixels import FAULTS, decode_pixels, flatten, to_rgb
from app.providers.stub.art import Layout, Palette, draw_hill, draw_label, draw_words

ART = 1
"""The version of this drawing: it goes up with every change of its pixels."""

_WORDS_SIDE_MIN = 64  # pixels: what art needs
_STRENGTH = 0.5  # of the prompt's colours
_INSETS = (0, 0.05, 0.1, 0.15, 0.2, 0.25)
_PRINT_MAX, _STEP, _PRINT_MIN = 0.25, 1.12, 16  # of the shorter side; from print to print, of its side; pixels


class EditingProvider:
    """Draws in a thread of `pool` what images go into, and what none goes into as `stub` does.

    It takes the way of a provider that costs: its images are kept, since what went in may be gone later.
    """

    name = "editing"
    is_deterministic = False

    def __init__(self, stub: Provider, pool: FairPool) -> None:
        self._stub = stub
        self._pool = pool

    def refusal(self, size: Size | None) -> str | None:
        return self._stub.refusal(size)

    async def check(self) -> str:
        return "ok"

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        if not request.images:
            return await self._stub.draw(request, deadline=deadline)
        images, mask = [each.blob for each in request.images], request.mask.blob if request.mask else None
        width, height = request.size
        draw = partial(draw_edit_png, request.prompt, images, mask, width=width, height=height, model=request.model)
        try:
            async with asyncio.timeout_at(deadline):
                return Image(await self._pool.run(draw, group=request.group or request.budget.account_id), "png")
        except TimeoutError:
            raise ProviderTimeout from None
        except Unavailable:
            raise NoFreeSlot from None
        except InvalidImage:
            raise ProviderFailed(failure="request") from None


def draw_edit_png(
    prompt: str, images: Sequence[Blob], mask: Blob | None = None, *, width: int, height: int, model: str = ""
) -> bytes:
    """A PNG of exactly width x height pixels: the first image, cropped in the middle to that shape, in the prompt's
    colours, the others as small frames on it, and the prompt's words. The same bytes for the same arguments, every
    time, in every process.

    Where the mask, cropped and scaled alike, is opaque, the pixels are those of the first image as it was scaled.
    One of the images is in memory at a time. Raises InvalidImage for one that cannot be decoded.
    """
    size = width, height
    canvas = ImageOps.fit(flatten(_pixels(images[0])), size, Pillow.Resampling.LANCZOS)
    if mask is None:
        canvas = _edited(canvas, prompt, images[1:], model)
    else:
        opaque = _pixels(mask).convert("RGBA").getchannel("A")
        change = ImageChops.invert(ImageOps.fit(opaque, size, Pillow.Resampling.BOX))
        box = _region(change)
        change = change.crop(box)
        canvas.paste(_edited(canvas.crop(box), prompt, images[1:], model, inset=_inset(change)), box, change)
    encoded = BytesIO()
    canvas.save(encoded, "PNG", compress_level=4)
    return encoded.getvalue()


def _pixels(blob: Blob) -> Pillow.Image:
    """In RGB or RGBA. Raises InvalidImage."""
    content = blob.part(0, blob.size)
    with suppress(*FAULTS), Pillow.open(BytesIO(content), formats=[each.upper() for each in IMAGE_FORMATS]) as opened:
        return to_rgb(decode_pixels(opened, content)).copy()
    raise InvalidImage  # out here, so that the decoder's error, which quotes the bytes, is not its cause


def _region(change: Pillow.Image) -> tuple[int, int, int, int]:
    """The part of the canvas that changes, or the whole of it where that is too small for words."""
    left, upper, right, lower = change.getbbox() or (0, 0, 0, 0)
    is_large = min(right - left, lower - upper) >= _WORDS_SIDE_MIN
    return (left, upper, right, lower) if is_large else (0, 0, *change.size)


def _inset(change: Pillow.Image) -> float:
    """How far from its edges words must stay to be within what changes where that is an ellipse or the like: a share of
    its width and height.
    """
    for share in _INSETS:
        x, y = round(change.width * share), round(change.height * share)
        corners = [(left, upper) for left in (x, change.width - 1 - x) for upper in (y, change.height - 1 - y)]
        if all(change.getpixel(corner) for corner in corners):
            return share
    return 0


def _edited(
    photograph: Pillow.Image, prompt: str, others: Sequence[Blob], model: str, *, inset: float = 0
) -> Pillow.Image:
    width, height = photograph.size
    x, y = round(width * inset), round(height * inset)
    palette, layout = Palette(prompt), Layout(prompt, width - 2 * x, height - 2 * y)
    layout.margin, layout.top = layout.margin + x, layout.top + y
    grey = ImageOps.autocontrast(ImageOps.grayscale(photograph), cutoff=1)
    deep, middle, bright = palette.colour(0, 0.22, 0.10), palette.colour(0.5, 0.62, 0.17), palette.colour(1, 0.97, 0.05)
    toned = ImageOps.colorize(grey, deep, bright, middle)
    canvas = Pillow.blend(photograph, toned, _STRENGTH)
    for far, opacity in ((2, 90), (1, 150), (0, 255)):
        draw_hill(canvas, palette, layout, far, opacity=opacity)
    _draw_prints(canvas, palette, others, margin=layout.margin, reach=round(min(layout.top, height * 0.8)))
    draw_words(canvas, palette, layout)
    draw_label(canvas, palette, layout, model)
    return canvas


def _draw_prints(canvas: Pillow.Image, palette: Palette, images: Sequence[Blob], *, margin: int, reach: int) -> None:
    """The images as square prints, each a little turned, in rows from the top right corner in the upper `reach`."""
    across, side = _grid(len(images), (canvas.width - 2 * margin, reach - margin), round(min(canvas.size) * _PRINT_MAX))
    if side < _PRINT_MIN:
        return
    for number, image in enumerate(images):
        turned = _print(flatten(_pixels(image)), side, palette.between(f"turn of print {number}", -5, 5))
        row, column = divmod(number, across)
        x = canvas.width - margin - side / 2 - column * side * _STEP
        y = margin + side / 2 + row * side * _STEP
        corner = round(x - turned.width / 2), round(y - turned.height / 2)
        shadow = turned.getchannel("A").filter(ImageFilter.GaussianBlur(side * 0.03)).point(lambda a: a // 2)
        canvas.paste(palette.hills[0][1], (corner[0], corner[1] + round(side * 0.03)), shadow)
        canvas.paste(turned, corner, turned)


def _grid(number: int, space: tuple[int, int], side: int) -> tuple[int, int]:
    """How many prints stand in a row, and the side of each: the largest, up to `side`, at which all fit."""
    while side >= _PRINT_MIN:
        across, down = (max(1, int((each - side) / (side * _STEP)) + 1) for each in space)
        if across * down >= number and side <= min(space):
            return across, side
        side -= max(1, side // 20)
    return 1, 0


def _print(image: Pillow.Image, side: int, degrees: float) -> Pillow.Image:
    """The middle of the image, on white paper."""
    paper = round(side * 0.05)
    sheet = Pillow.new("RGBA", (side, side), "white")
    sheet.paste(ImageOps.fit(image, (side - 2 * paper, side - 2 * paper), Pillow.Resampling.LANCZOS), (paper, paper))
    return sheet.rotate(degrees, Pillow.Resampling.BICUBIC, expand=True, fillcolor=(255, 255, 255, 0))
