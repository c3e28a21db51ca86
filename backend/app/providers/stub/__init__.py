"""Draws on this machine, from the words of the prompt, at no cost: for test keys, and until a model is configured."""

import asyncio
from functools import partial

from app.core.errors import Unavailable
from app.core.fair_queue import FairPool
from app.providers import DrawRequest, Image, NoFreeSlot, ProviderTimeout, Size
from app.providers.stub.art import draw_png

SIDE_MIN = 64
SIDE_MAX = 2048

_UNNAMED = "nano-banana"
"""The model that was the only one: its images bear the product's name, and so keep the bytes that they had."""


class StubProvider:
    """Draws in a thread of `pool`."""

    name = "stub"
    is_deterministic = True

    def __init__(self, pool: FairPool) -> None:
        self._pool = pool

    def refusal(self, size: Size | None) -> str | None:
        if size is not None and SIDE_MIN <= size.width <= SIDE_MAX and SIDE_MIN <= size.height <= SIDE_MAX:
            return None
        least, most = Size(SIDE_MIN, SIDE_MIN), Size(SIDE_MAX, SIDE_MAX)
        return f"Must be WIDTHxHEIGHT, each side {SIDE_MIN} to {SIDE_MAX} pixels: {least} to {most}"

    async def check(self) -> str:
        return "ok"

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        size, model = request.size, "" if request.model == _UNNAMED else request.model
        draw = partial(draw_png, request.prompt, width=size.width, height=size.height, model=model)
        try:
            async with asyncio.timeout_at(deadline):
                return Image(await self._pool.run(draw, group=request.group), "png")
        except TimeoutError:
            raise ProviderTimeout from None
        except Unavailable:
            raise NoFreeSlot from None
