"""Images in memory: bounded in bytes, the last that were read are kept, and each is drawn once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from app.generations.drawn import DrawnImages


class Drawings:
    """Draws images of 10 bytes, and counts them."""

    def __init__(self, images: DrawnImages) -> None:
        self.drawn: list[str] = []
        self._images = images

    async def fetch(self, *names: str, size: int = 10) -> None:
        for name in names:
            assert await self._images.fetch(name, self._draw(name, size)) == name[:1].encode() * size

    def _draw(self, name: str, size: int) -> Callable[[], Coroutine[Any, Any, bytes]]:
        async def draw() -> bytes:
            await asyncio.sleep(0)
            self.drawn.append(name)
            return name[:1].encode() * size

        return draw


async def test_what_was_read_last_is_kept_within_the_bound() -> None:
    images = DrawnImages(bytes_max=30)
    drawings = Drawings(images)
    await drawings.fetch("a", "b", "c", "a", "d", "a", "c", "d", "b")
    assert drawings.drawn == ["a", "b", "c", "d", "b"], "b was not read for the longest time when d came"
    assert [images.size_of(name) for name in "abcd"] == [None, 10, 10, 10]


async def test_an_image_beyond_the_bound_is_drawn_and_not_kept_and_displaces_nothing() -> None:
    images = DrawnImages(bytes_max=30)
    drawings = Drawings(images)
    await drawings.fetch("a")
    await drawings.fetch("x", size=31)
    assert (images.size_of("a"), images.size_of("x")) == (10, None)


async def test_a_dropped_image_frees_its_bytes() -> None:
    images = DrawnImages(bytes_max=20)
    drawings = Drawings(images)
    await drawings.fetch("a", "b")
    images.drop("a")
    images.drop("unknown")
    await drawings.fetch("c")
    assert [images.size_of(name) for name in "abc"] == [None, 10, 10]


async def test_all_who_ask_at_once_share_one_drawing() -> None:
    images = DrawnImages(bytes_max=30)
    drawings = Drawings(images)
    await asyncio.gather(*(drawings.fetch("a") for _ in range(100)))
    assert drawings.drawn == ["a"]


async def test_a_request_that_comes_as_the_drawing_ends_finds_the_image() -> None:
    images, drawn, asked = DrawnImages(bytes_max=30), list[str](), list[asyncio.Task[bytes]]()

    async def draw() -> bytes:
        drawn.append("a")
        loop = asyncio.get_running_loop()
        if len(drawn) == 1:  # the request runs after the drawing has ended, and before those who wait for it
            loop.call_soon(lambda: asked.append(loop.create_task(images.fetch("a", draw))))
        return b"a"

    assert await images.fetch("a", draw) == b"a"
    assert await asyncio.gather(*asked) == [b"a"]
    assert drawn == ["a"]
