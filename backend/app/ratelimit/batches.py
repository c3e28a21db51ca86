"""Operations that wait to be sent to Redis, as the keys and arguments of the script that decides them."""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from itertools import chain, islice

from app.ratelimit import Slot

BATCH_MAX = 500
"""Operations that one run of the script decides at most: a few milliseconds, in which Redis does nothing else."""
_BATCH_MIN = 32

Argument = str | int
Reply = tuple[int, Sequence[int], bool]
"""The time, the clamped TAT of each bucket before the take, and whether there was no free slot."""


class RedisUnavailable(Exception):
    """Redis did not decide: it cannot be reached, is too slow, or refuses to write. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def sentence(self) -> str:
        """For the operator, at the start and in the log of a running process alike."""
        return f"The Redis of REDIS_URL cannot be used ({self.reason})."


class Batch:
    """Operations of one group that one run of the script decides, and the futures of those who wait for its replies."""

    def __init__(self, prefix: str, *, operations_max: int) -> None:
        self.operations_max = operations_max
        self.keys: dict[str, int] = {}
        self.released: list[tuple[Slot, str]] = []
        """The slots that this batch releases, each with its group."""
        self._prefix = prefix
        self._operations = 0
        self._arguments: list[Argument] = []
        self._waiters: list[tuple[int | None, asyncio.Future[Reply]]] = []

    @property
    def is_full(self) -> bool:
        return self._operations >= self.operations_max

    @property
    def arguments(self) -> str:
        """All arguments as one JSON array: the Redis client spends time on each argument of a command."""
        return json.dumps(self._arguments)

    def key_index(self, name: str) -> int:
        """The index of this key among the keys of the script, counted from 1."""
        return self.keys.setdefault(self._prefix + name, len(self.keys) + 1)

    def add(self, arguments: Sequence[Argument]) -> None:
        """Adds an operation. Its arguments come all at once, so that one that fails to encode a name adds nothing."""
        self._operations += 1
        self._arguments += arguments

    def add_awaited(self, arguments: Sequence[Argument], *, buckets: int | None) -> asyncio.Future[Reply]:
        """Adds an operation and returns its future reply, about so many buckets; None if the script replies nothing."""
        self.add(arguments)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiters.append((buckets, future))
        return future

    def deliver(self, reply: Sequence[int]) -> None:
        """Resolves every future with its part of the script's reply."""
        now, values = reply[0], iter(reply[1:])
        for buckets, future in self._waiters:
            tats = list(islice(values, buckets or 0))
            no_free_slot = buckets is not None and next(values) == 1
            if not future.done():  # its caller may have been cancelled
                future.set_result((now, tats, no_free_slot))

    def fail(self, reason: str) -> None:
        """Fails every pending future with RedisUnavailable."""
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(RedisUnavailable(reason))


class Queue:
    """Batches that wait, by group and in order of arrival. A group's first is small, each later one twice as large.

    If everything that waits were sent at once, the callers that are answered together would call again together, and
    the process would have nothing to do while all of them wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Batch]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def open_batch(self, prefix: str) -> Batch:
        """The batch that takes the next operation of the group whose keys begin with this prefix."""
        batches = self._waiting.get(prefix)
        if batches is None:
            batches = self._waiting[prefix] = deque([Batch(prefix, operations_max=_BATCH_MIN)])
        elif batches[-1].is_full:
            batches.append(Batch(prefix, operations_max=min(2 * batches[-1].operations_max, BATCH_MAX)))
        return batches[-1]

    def pop_first(self) -> list[Batch]:
        """Removes and returns the first batch of each group."""
        first = [batches.popleft() for batches in self._waiting.values()]
        self._waiting = {prefix: batches for prefix, batches in self._waiting.items() if batches}
        return first

    def pop_all(self) -> list[Batch]:
        """Removes and returns every batch."""
        waiting, self._waiting = self._waiting, {}
        return list(chain.from_iterable(waiting.values()))
