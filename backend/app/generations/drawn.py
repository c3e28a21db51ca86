"""Images of the stub, in memory for a while after they were drawn."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from app.core.shared_calls import SharedCalls

KEPT_BYTES_MAX = 32 * 2**20
"""Of one process: some 300 images of 1024x1024."""


class DrawnImages:
    """Encoded images by name, at most `bytes_max` bytes in all: what was not read for the longest time goes first."""

    def __init__(self, *, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: dict[str, bytes] = {}
        self._drawing = SharedCalls[bytes]()

    async def fetch(self, name: str, draw: Callable[[], Coroutine[Any, Any, bytes]], *, group: str = "") -> bytes:
        """The image that is kept, or else what `draw` returns, which is called once for all who ask at the same time.

        Raises what `draw` raises. It is cancelled when all who wait for it were.
        """
        content = self._kept.get(name)
        if content is None:
            return await self._drawing.join(name, partial(self._draw, name, draw), group=group)
        self._keep(name, content)
        return content

    def size_of(self, name: str) -> int | None:
        """The image's size in bytes; None where it is not kept."""
        content = self._kept.get(name)
        return None if content is None else len(content)

    def drop(self, name: str) -> None:
        """Forgets the image. Does nothing where it is not kept."""
        self._bytes -= len(self._kept.pop(name, b""))

    async def _draw(self, name: str, draw: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        content = await draw()
        self._keep(name, content)  # before the call has ended: a request after that finds the image
        return content

    def _keep(self, name: str, content: bytes) -> None:
        self.drop(name)
        if len(content) > self._bytes_max:
            return
        self._kept[name] = content  # the last in the order
        self._bytes += len(content)
        while self._bytes > self._bytes_max:
            self.drop(next(iter(self._kept)))
