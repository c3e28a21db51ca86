"""What a request asks of a model: the size that it comes to, the routes that can draw it, or its refusal."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from app.catalogue.model import Model
from app.catalogue.routing import OpenRoute
from app.core.errors import Invalid, UnsupportedParameter
from app.core.security import KeyEnvironment
from app.providers import Background, Provider, Size
from app.providers.stub import SIDE_MAX, SIDE_MIN

AUTO_SIZE = "auto"
_SQUARE = Size(1024, 1024)
_STEP = 8
"""Of the sides of a size that is made for a shape, in pixels."""


class Asked(NamedTuple):
    """What a caller asks for, as it was sent, and the environment of its key: what the catalogue has to say about."""

    model: str | None
    size: str
    quality: str
    background: Background
    environment: KeyEnvironment
    references: int = 0
    """How many images go in. With them the size may be `auto`."""
    has_mask: bool = False
    shape: Size | None = None
    """Of the first of them; None while it is not known, which counts as a square."""


class Chosen(NamedTuple):
    """What is drawn, and by which routes, in their order."""

    size: Size
    quality: str
    routes: Sequence[OpenRoute]


def choose(model: Model, routes: Sequence[OpenRoute], asked: Asked, stub: Provider) -> Chosen:
    """Raises Invalid for what no route can draw, with what there is, and UnsupportedParameter for a background."""
    if model.prices.qualities:
        routes = [each for each in routes if "quality" in each.route.capabilities]
    if asked.references:
        routes = _editing(routes, asked)
    is_auto = asked.size == AUTO_SIZE and asked.references > 0
    size = None if is_auto else _size_of(routes, asked.size, stub)
    quality = model.quality_of(asked.quality)
    if quality is None:
        raise _refused("quality", f"Must be one of {', '.join(['auto', *model.qualities])}")
    sized = [each for each in routes if is_auto or not each.route.sizes or size in each.route.sizes]
    able = [each for each in sized if asked.background != "transparent" or "transparent" in each.route.capabilities]
    if not able:
        raise UnsupportedParameter("background", "This model draws no transparent images; use auto or opaque")
    if size is None:
        size = _size_like(asked.shape or _SQUARE, _sizes_of(able))
        able = [each for each in able if not each.route.sizes or size in each.route.sizes]
    return Chosen(size, quality, able)


def _editing(routes: Sequence[OpenRoute], asked: Asked) -> Sequence[OpenRoute]:
    """The routes that so many images, and a mask, can go into."""
    if not any(each.route.references_max for each in routes):
        raise _refused("images", "This model takes no images")
    if asked.has_mask:
        routes = [each for each in routes if each.route.references_max and "mask" in each.route.capabilities]
        if not routes:
            raise _refused("mask", "This model takes no mask")
    most = max(each.route.references_max for each in routes)
    if asked.references > most:
        number = "1 image" if most == 1 else f"{most} images"
        raise _refused("images", f"This model takes at most {number}{' with a mask' if asked.has_mask else ''}")
    return [each for each in routes if each.route.references_max >= asked.references]


def _sizes_of(routes: Sequence[OpenRoute]) -> Sequence[Size]:
    return list(dict.fromkeys(size for each in routes for size in each.route.sizes))


def _size_of(routes: Sequence[OpenRoute], text: str, stub: Provider) -> Size:
    """Raises Invalid, with the sizes that can be drawn, for a text that names none of them."""
    size, sizes = Size.parse(text), _sizes_of(routes)
    if sizes:
        refusal = None if size in sizes else f"Must be one of {', '.join(map(str, sizes))}"
    else:
        refusal = stub.refusal(size)
    if size is None or refusal is not None:
        raise _refused("size", refusal or "Must be written as 1024x1024")
    return size


def _size_like(shape: Size, sizes: Sequence[Size]) -> Size:
    """Of the sizes, the one whose shape is nearest to this one, and of those of one shape the one that is nearest to
    1024x1024 in pixels. Where the stub draws any size: one of this shape with about as many pixels.
    """
    if not sizes:
        ratio = max(shape) / min(shape)
        longer = min(_SQUARE.width * math.sqrt(ratio), SIDE_MAX)
        sides = [round(each / _STEP) * _STEP for each in (longer, max(longer / ratio, SIDE_MIN))]
        return Size(*(sides if shape.width > shape.height else reversed(sides)))
    return min(sizes, key=lambda each: (round(abs(_slant(each) - _slant(shape)), 2), abs(_area(each) - _area(_SQUARE))))


def _slant(size: Size) -> float:
    return math.log(size.width / size.height)


def _area(size: Size) -> float:
    return math.log(size.width * size.height)


def _refused(field_name: str, sentence: str) -> Invalid:
    return Invalid([{"pointer": f"#/{field_name}", "detail": sentence}])
