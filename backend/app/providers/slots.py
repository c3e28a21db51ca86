"""The slots of one process for images that a provider draws, shared fairly by accounts."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.providers import CallBudget, NoFreeSlot


class AccountSlots:
    """`slots_max` slots, of which one account holds at most `account_max`. The rest is free for other accounts.

    An image that finds no slot waits in line. A slot that becomes free goes to the accounts that wait and may hold one
    more, in turn, and to each account's images in order of arrival. A request is refused as a whole where `account_max`
    images of its account are in line; or where one is and the line is full, with `slots_max` images, of which at most
    `account_max` of one account count. So every account finds a place in line.
    """

    def __init__(self, slots_max: int, account_max: int) -> None:
        self._free = self._slots_max = slots_max
        self._account_max = account_max
        self._held: Counter[str] = Counter()
        self._lines: OrderedDict[str, dict[asyncio.Future[bool], None]] = OrderedDict()
        """The images in line, by account; the account whose turn is next comes first."""

    @property
    def held(self) -> int:
        return self._slots_max - self._free

    @property
    def waiting(self) -> int:
        return sum(map(len, self._lines.values()))

    @asynccontextmanager
    async def hold(self, budget: CallBudget, *, waits: bool = True) -> AsyncIterator[None]:
        """Holds a slot for one image of a request, once it is its turn; one that does not wait is refused instead.

        Raises NoFreeSlot for a request that is refused, and at once what closes its budget.
        """
        # While a slot is free, only images of accounts that hold all that they may are in line.
        if budget.closed_by is not None:
            raise budget.closed_by
        if self._free and self._held[budget.account_id] < self._account_max:
            budget.is_admitted = True
            self._take(budget.account_id)
        elif waits:
            await self._wait(budget)
        else:
            raise NoFreeSlot
        try:
            yield
        finally:
            self._release(budget.account_id)

    async def _wait(self, budget: CallBudget) -> None:
        """Returns once the image has been given a slot."""
        turn = self._join(budget)
        try:
            has_slot = await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                self._release(budget.account_id)
            raise
        finally:
            self._leave(budget, turn)
        if not has_slot:
            raise budget.closed_by or NoFreeSlot()

    def _join(self, budget: CallBudget) -> asyncio.Future[bool]:
        line = self._lines.get(budget.account_id, {})
        if not budget.is_admitted and len(line) >= self._line_max():
            refusal = NoFreeSlot()
            budget.close(refusal)  # all images of the request are refused alike
            raise refusal
        budget.is_admitted = True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(budget.account_id, line)[turn] = None
        budget.waiting.add(turn)
        return turn

    def _line_max(self) -> int:
        """How many images of an account may be in line before a further request of it is refused."""
        in_line = sum(min(len(line), self._account_max) for line in self._lines.values())
        return self._account_max if in_line < self._slots_max else 1

    def _leave(self, budget: CallBudget, turn: asyncio.Future[bool]) -> None:
        line = self._lines[budget.account_id]
        del line[turn]
        if not line:
            del self._lines[budget.account_id]
        budget.waiting.remove(turn)

    def _take(self, account_id: str) -> None:
        self._free -= 1
        self._held[account_id] += 1

    def _release(self, account_id: str) -> None:
        self._free += 1
        self._held[account_id] -= 1
        if not self._held[account_id]:
            del self._held[account_id]
        self._give_to_next()

    def _give_to_next(self) -> None:
        """Gives the slot that became free to the next image that may have it."""
        for account_id, line in self._lines.items():
            turn = next((each for each in line if not each.done()), None)
            if turn is not None and self._held[account_id] < self._account_max:
                self._take(account_id)
                turn.set_result(True)
                self._lines.move_to_end(account_id)
                return
