"""Draws on this machine, from the words of the prompt, at no cost: for test keys, and until a model is configured."""

from functools import partial

from app.core.pool import BoundedPool
from app.providers import Order, Picture, Size
from app.providers.picture import draw_png

SIDE_MIN = 64
SIDE_MAX = 2048


class StubProvider:
    """A provider that needs nothing but a thread."""

    name = "stub"

    def __init__(self, pool: BoundedPool) -> None:
        self._pool = pool

    def refusal(self, size: Size) -> str | None:
        if SIDE_MIN <= size.width <= SIDE_MAX and SIDE_MIN <= size.height <= SIDE_MAX:
            return None
        return f"Each side must be {SIDE_MIN} to {SIDE_MAX} pixels: 64x64 to 2048x2048"

    async def draw(self, order: Order) -> Picture:
        draw = partial(draw_png, order.prompt, width=order.size.width, height=order.size.height)
        return Picture(await self._pool.run(draw), "image/png")
