"""A bound on the bytes of all responses that a process holds at a time."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Waiting = deque[tuple[int, asyncio.Future[None]]]


class ResponseMemory:
    """Shares `bytes_max` among responses, in the order in which they ask; one that is being read goes before one that
    has not begun.

    Where every response that holds bytes waits for more, none would ever end: the first of them goes on. So in all
    there are at most `bytes_max` and one response more.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = self._free = bytes_max
        self._holders = 0
        self._growing, self._beginning = Waiting(), Waiting()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator["Share"]:
        """Waits for so many bytes, and has them and what the share grows by until the context is left."""
        share = Share(self)
        await self._wait(self._beginning, min(size, self._bytes_max))
        share.bytes = min(size, self._bytes_max)
        try:
            yield share
        finally:
            self._holders -= 1
            self._free += share.bytes
            self._serve()

    async def grow(self, size: int) -> None:
        """Waits for so many bytes more, for a response that holds some."""
        await self._wait(self._growing, size)

    async def _wait(self, line: Waiting, size: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        line.append((size, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was served in the same turn of the event loop
                self._free += size
                self._holders -= line is self._beginning
            self._serve()
            raise

    def _serve(self) -> None:
        self._drop_cancelled()
        while self._growing and (self._fits(self._growing) or len(self._growing) == self._holders):
            self._give(self._growing)
        while not self._growing and self._beginning and self._fits(self._beginning):
            self._give(self._beginning)
            self._holders += 1

    def _drop_cancelled(self) -> None:
        for line in (self._growing, self._beginning):
            for entry in [entry for entry in line if entry[1].cancelled()]:
                line.remove(entry)

    def _fits(self, line: Waiting) -> bool:
        return line[0][0] <= self._free

    def _give(self, line: Waiting) -> None:
        size, turn = line.popleft()
        self._free -= size
        turn.set_result(None)


class Share:
    """What one response holds of a budget."""

    def __init__(self, memory: ResponseMemory) -> None:
        self.bytes = 0
        self._memory = memory

    async def grow(self, size: int) -> None:
        """Waits until it holds so many bytes more."""
        await self._memory.grow(size)
        self.bytes += size
