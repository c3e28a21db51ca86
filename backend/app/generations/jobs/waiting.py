"""Callers of this process who wait for generations to change.

One listener and one query a second serve all of them: a caller who waits costs a little memory, and no connection of
the database.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import ARRAY, Text, any_, literal, select

from app.core.errors import Overloaded
from app.core.repeating import repeat
from app.generations.collaborators import Generations
from app.models import Generation, GenerationStatus

_POLL_SECONDS = 1.0
_SHARES = 4
"""Of the places for callers who wait: an account has at most one share."""
RETRY_SECONDS = 5
"""After which a caller who may not wait is to try again."""


@dataclass(eq=False)
class WaitingCaller:
    """A caller who may wait, as often as it likes, until `stop`."""

    _callers: "WaitingCallers"
    seen: GenerationStatus = "queued"
    is_stopped: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Ends the wait, and every later one at once."""
        self.is_stopped = True
        self.woken.set()

    async def until_changed(self, generation_id: str, *, seen: GenerationStatus, seconds: float) -> None:
        """Returns once the generation's status is no longer `seen`, or there is no such generation, or after so many
        seconds, or when stopped. It may return although nothing has changed: then wait again.
        """
        if self.is_stopped:
            return
        self.seen = seen
        self.woken.clear()
        with self._callers.awaiting(generation_id, self), suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()


class WaitingCallers:
    """All of them: at most `most` at a time, and of one account at most a quarter of that."""

    def __init__(self, generations: Generations, *, most: int) -> None:
        self._generations = generations
        self._most = most
        self._most_of_account = max(1, most // _SHARES)
        self._count = 0
        self._count_of = Counter[str]()
        self._of_id: defaultdict[str, set[WaitingCaller]] = defaultdict(set)

    @contextmanager
    def enter(self, account_id: str) -> Iterator[WaitingCaller]:
        """A caller of the account, who may wait within the block. Raises Overloaded where there are as many as there
        may be.
        """
        if self._count >= self._most or self._count_of[account_id] >= self._most_of_account:
            raise Overloaded(retry_after_seconds=RETRY_SECONDS)
        self._count += 1
        self._count_of[account_id] += 1
        try:
            yield WaitingCaller(self)
        finally:
            self._count -= 1
            self._count_of[account_id] -= 1
            if not self._count_of[account_id]:
                del self._count_of[account_id]

    @contextmanager
    def awaiting(self, generation_id: str, caller: WaitingCaller) -> Iterator[None]:
        """Within the block the caller is woken when the generation has changed."""
        self._of_id[generation_id].add(caller)
        try:
            yield
        finally:
            self._of_id[generation_id].discard(caller)
            if not self._of_id[generation_id]:
                del self._of_id[generation_id]

    async def run(self) -> None:
        """Wakes callers until it is cancelled: when the bell rings for what they wait for, and else within a second."""
        with self._generations.bell.heard_by(self._hear):
            await repeat(self._look, seconds=_POLL_SECONDS, task="wake_waiting_callers")

    def _hear(self, names: Collection[str]) -> None:
        for each in names:
            for caller in self._of_id.get(each, ()):
                caller.woken.set()

    async def _look(self) -> None:
        ids = list(self._of_id)
        if not ids:
            return
        async with self._generations.sessions.begin() as session:
            is_awaited = Generation.id == any_(literal(ids, ARRAY(Text)))
            statement = select(Generation.id, Generation.status).where(is_awaited)
            statuses = {each.id: each.status for each in await session.execute(statement)}
        for each in ids:
            for caller in self._of_id.get(each, ()):
                if statuses.get(each) != caller.seen:
                    caller.woken.set()
