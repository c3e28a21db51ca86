"""Turns and threads that groups of callers share equally: the many calls of one do not hold up the few of another."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.core.errors import Unavailable
from app.core.pool import LOWEST_PRIORITY, BoundedPool, Result


class FairQueue:
    """Lets `slots` blocks run at a time, at most `slots_per_group` of them for one group. The groups of those that wait
    take turns; within a group the order is kept.

    At most `waiting_max` wait. A call that finds all these places taken is refused, unless its group would still have
    fewer of them than another: then it takes the place of the last call of the group with the most, which is refused.
    """

    def __init__(self, *, slots: int, waiting_max: int, slots_per_group: int | None = None) -> None:
        self._free_slots = slots
        self._slots_per_group = slots if slots_per_group is None else slots_per_group
        self._running: Counter[str] = Counter()
        self._waiting_max = waiting_max
        self._waiting: dict[str, deque[asyncio.Future[bool]]] = {}
        """The calls that wait, by group; the group whose turn is next comes first. True gives a slot, False refuses."""

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, group: str = "") -> AsyncIterator[None]:
        """Runs the block in the group's turn. Raises Unavailable where the call is refused."""
        if self._has_slot_for(group):
            self._take_slot(group)
        elif not await self._wait(group):
            raise Unavailable(retry_after_seconds=1)
        try:
            yield
        finally:
            self._leave(group)

    def _has_slot_for(self, group: str) -> bool:
        return self._free_slots > 0 and self._running[group] < self._slots_per_group

    def _take_slot(self, group: str) -> None:
        self._free_slots -= 1
        self._running[group] += 1

    async def _wait(self, group: str) -> bool:
        """Returns True with a slot, or False where the call is refused."""
        if not self._has_place_for(group):
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(group, deque()).append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._withdraw(turn, group)
            elif turn.result():  # it was cancelled after it had got the slot
                self._leave(group)
            raise

    def _has_place_for(self, group: str) -> bool:
        if self.waiting < self._waiting_max:
            return True
        most = max(self._waiting.values(), key=len)
        if len(self._waiting.get(group, ())) + 1 >= len(most):
            return False
        refused = most.pop()
        if not refused.done():
            refused.set_result(False)
        return True

    def _withdraw(self, turn: "asyncio.Future[bool]", group: str) -> None:
        waiting = self._waiting.get(group, deque())
        if turn in waiting:
            waiting.remove(turn)
        if not waiting:
            self._waiting.pop(group, None)

    def _leave(self, group: str) -> None:
        """Hands the slot to the next that may have it, and was not cancelled."""
        self._free_slots += 1
        self._running[group] -= 1
        if not self._running[group]:
            del self._running[group]
        while (following := next(filter(self._has_slot_for, self._waiting), None)) is not None:
            waiting = self._waiting.pop(following)
            turn = waiting.popleft()
            if waiting:
                self._waiting[following] = waiting  # behind the other groups
            if not turn.done():
                self._take_slot(following)
                turn.set_result(True)
                return


class FairPool(BoundedPool):
    """A BoundedPool whose queue is a FairQueue."""

    def __init__(self, *, threads: int, queue_max: int, name: str, niceness: int = LOWEST_PRIORITY) -> None:
        # Each thread may be busy with a call that was cancelled while the next call has its turn already.
        super().__init__(threads=threads, queue_max=threads, name=name, niceness=niceness)
        self._turns = FairQueue(slots=threads, waiting_max=queue_max)

    @property
    def jobs_waiting(self) -> int:
        return super().jobs_waiting + self._turns.waiting

    async def run(self, function: Callable[[], Result], *, group: str = "") -> Result:
        """The same, in the turn of the group."""
        async with self._turns.turn(group):
            return await super().run(function)
