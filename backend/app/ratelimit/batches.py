"""Operations that wait to be sent to Redis, in the words of the script."""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from itertools import chain, islice

from app.ratelimit import Lease

BATCH_MAX = 500
"""Operations that one script decides at most: a few milliseconds, in which Redis does nothing else."""
_BATCH_MIN = 32

Word = str | int
Levels = tuple[int, Sequence[int], bool]
"""The time, the level of each bucket before the units were taken, and whether as many leases as may be were running."""


class OutOfReach(Exception):
    """Redis did not decide: it cannot be reached, is too slow, or refuses to write. `reason` names the error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Batch:
    """Operations of one group that are sent together: the keys of one script, and its words about them."""

    def __init__(self, prefix: str, *, operations_max: int) -> None:
        self.operations_max = operations_max
        self.keys: dict[str, int] = {}
        self.ended: list[tuple[Lease, str]] = []
        self._prefix = prefix
        self._operations = 0
        self._words: list[Word] = []
        self._asked: list[tuple[int | None, asyncio.Future[Levels]]] = []

    @property
    def is_full(self) -> bool:
        return self._operations >= self.operations_max

    @property
    def words(self) -> str:
        """All of them in one: the client takes its time over each argument of a command."""
        return json.dumps(self._words)

    def key(self, name: str) -> int:
        """The place of this key among those of the script, from 1 on."""
        return self.keys.setdefault(self._prefix + name, len(self.keys) + 1)

    def tell(self, words: Sequence[Word]) -> None:
        """Adds an operation. All its words at once: one that cannot be written takes none of the others with it."""
        self._operations += 1
        self._words += words

    def ask(self, words: Sequence[Word], *, levels: int | None) -> asyncio.Future[Levels]:
        """The same, and what the script will have answered: this many levels, or None for no answer."""
        self.tell(words)
        future: asyncio.Future[Levels] = asyncio.get_running_loop().create_future()
        self._asked.append((levels, future))
        return future

    def settle(self, answer: Sequence[int]) -> None:
        """Gives everybody their part of the answer."""
        now, rest = answer[0], iter(answer[1:])
        for count, future in self._asked:
            levels = list(islice(rest, count or 0))
            crowded = count is not None and next(rest) == 1
            if not future.done():  # its caller may have gone
                future.set_result((now, levels, crowded))

    def fail(self, reason: str) -> None:
        """Tells everybody who still waits: OutOfReach."""
        for _, future in self._asked:
            if not future.done():
                future.set_exception(OutOfReach(reason))


class Queue:
    """Batches by group, each group's in the order of asking. A group's first is small, each behind it twice as large.

    Were all that waits sent at once, those who are answered together would ask together again, and the process would
    have nothing to do while they all wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Batch]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def last(self, group: str) -> Batch:
        """The group's batch that takes the next operation. Its keys begin with the group's name."""
        batches = self._waiting.get(group)
        if batches is None:
            batches = self._waiting[group] = deque([Batch(group, operations_max=_BATCH_MIN)])
        elif batches[-1].is_full:
            batches.append(Batch(group, operations_max=min(2 * batches[-1].operations_max, BATCH_MAX)))
        return batches[-1]

    def take_first(self) -> list[Batch]:
        """The first batch of each group, which waits no longer."""
        first = [batches.popleft() for batches in self._waiting.values()]
        self._waiting = {group: batches for group, batches in self._waiting.items() if batches}
        return first

    def take_all(self) -> list[Batch]:
        """Every batch; none of them waits any longer."""
        everything, self._waiting = self._waiting, {}
        return list(chain.from_iterable(everything.values()))
