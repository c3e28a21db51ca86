"""The pixels that a ratio and a size come to, of a model."""

from collections.abc import Iterator, Mapping
from typing import Literal

from app.catalogue.model import Model
from app.catalogue.prices import SIZE_CLASSES, size_class
from app.core.errors import Invalid
from app.providers import Size
from app.providers.gemini import Frame
from app.providers.stub import SIDE_MAX

AspectRatio = Literal["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"]
ImageSize = Literal["1K", "2K", "4K"]

RATIOS: Mapping[str, Size] = {
    "1:1": Size(1024, 1024),
    "2:3": Size(832, 1248),
    "3:2": Size(1248, 832),
    "3:4": Size(864, 1184),
    "4:3": Size(1184, 864),
    "4:5": Size(896, 1152),
    "5:4": Size(1152, 896),
    "9:16": Size(768, 1344),
    "16:9": Size(1344, 768),
    "21:9": Size(1536, 672),
}
"""What Google's models draw for each ratio at 1K: some are not exactly of it."""

_SCALES = {"1K": 1, "2K": 2, "4K": 4}


def size_of(model: Model | None, *, aspect_ratio: str | None, image_size: str | None, pointer: str) -> str:
    """The size of the model's that has this ratio and size class, by default `1:1` and `1K`. Of several, the one
    nearest to what Google draws; where the model has no table of sizes, or there is no such model, what Google draws.

    A request that names neither gets the model's first size where none is a square of 1K. Raises Invalid, with what
    there is, where the model has none that was named.
    """
    frame = Frame(aspect_ratio or "1:1", image_size or "1K")
    natural = _natural(frame)
    if model is None or not model.sizes:
        return str(natural)
    fitting = list(_fitting(model, frame))
    if not fitting and aspect_ratio is None and image_size is None:
        return str(model.sizes[0])
    if not fitting:
        frames = [Frame(ratio, each) for ratio in RATIOS for each in SIZE_CLASSES]
        offered = [f"{each.aspect_ratio} at {each.image_size}" for each in frames if any(_fitting(model, each))]
        raise Invalid([{"pointer": pointer, "detail": f"This model draws {', '.join(offered) or 'other shapes only'}"}])
    return str(min(fitting, key=lambda size: abs(size.width - natural.width)))


def _natural(frame: Frame) -> Size:
    """What Google draws, brought to the largest that the stub draws where that is 2K too."""
    width, height = RATIOS[frame.aspect_ratio]
    scale = float(_SCALES[frame.image_size])
    if frame.image_size == "2K":
        scale = min(scale, SIDE_MAX / max(width, height))
    return Size(int(width * scale), int(height * scale))


def _fitting(model: Model, frame: Frame) -> Iterator[Size]:
    for route in model.routes:
        for size in route.sizes:
            drawn = route.frames.get(size)
            if drawn == frame if drawn else _is_of(size, frame):
                yield size


def _is_of(size: Size, frame: Frame) -> bool:
    across, down = map(int, frame.aspect_ratio.split(":"))
    is_exact = size.width * down == size.height * across and size_class(size) == frame.image_size
    return is_exact or size == _natural(frame)
