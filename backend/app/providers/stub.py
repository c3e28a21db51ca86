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
        least, most = Size(SIDE_MIN, SIDE_MIN), Size(SIDE_MAX, SIDE_MAX)
        return f"Must be WIDTHxHEIGHT, each side {SIDE_MIN} to {SIDE_MAX} pixels: {least} to {most}"

    async def draw(self, order: Order) -> Picture:
        draw = partial(draw_png, order.prompt, width=order.size.width, height=order.size.height)
        return Picture(await self._pool.run(draw), "image/png")
