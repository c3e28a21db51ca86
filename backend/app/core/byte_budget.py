"""A bound on the bytes that many have in memory together, such as answers that their clients read slowly."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import Unavailable


class ByteBudget:
    """So many bytes for all shares together. Those for which too few are free wait in order of arrival."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextmanager
    def share(self) -> Iterator["ByteShare"]:
        """A share of nothing yet. What it holds at the end of the block is free again."""
        share = ByteShare(self)
        try:
            yield share
        finally:
            share.hold(0)

    def take(self, count: int) -> bool:
        """Takes so many bytes, or returns False where they are not free or others wait."""
        if self._waiting or count > self._free:
            return False
        self._free -= count
        return True

    async def wait_for(self, count: int, *, seconds: float) -> None:
        """Takes so many bytes once they are free. Raises Unavailable after `seconds`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        has_taken = False
        try:
            async with asyncio.timeout(seconds):
                await turn
            has_taken = True
        except TimeoutError:
            raise Unavailable from None
        finally:
            if not has_taken:
                self._leave(count, turn)

    def _leave(self, count: int, turn: asyncio.Future[None]) -> None:
        if (count, turn) in self._waiting:
            self._waiting.remove((count, turn))
            self.give_back(0)  # the next one may need less
        else:
            self.give_back(count)  # its turn came while it was cancelled

    def give_back(self, count: int) -> None:
        """Frees so many bytes, for those that wait first."""
        self._free += count
        while self._waiting and self._waiting[0][0] <= self._free:
            needed, turn = self._waiting.popleft()
            self._free -= needed
            if not turn.done():
                turn.set_result(None)


class ByteShare:
    """What one holder has of the budget. More than the whole budget counts as the whole budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0

    def hold(self, count: int) -> bool:
        """Holds so many bytes in all, or changes nothing and returns False where they are not to be had at once."""
        count = min(count, self._budget.total)
        if count <= self._held:
            self._budget.give_back(self._held - count)
        elif not self._budget.take(count - self._held):
            return False
        self._held = count
        return True

    async def wait_to_hold(self, count: int, *, seconds: float) -> None:
        """Holds so many bytes in all, once they are free. Raises Unavailable after `seconds`."""
        count = min(count, self._budget.total)
        if not self.hold(count):
            await self._budget.wait_for(count - self._held, seconds=seconds)
            self._held = count
