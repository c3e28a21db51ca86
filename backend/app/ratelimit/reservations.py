"""Units of limits on what fails, for attempts of which nobody knows yet whether they fail."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.core.errors import Unavailable
from app.core.limit_format import CONCURRENCY_MAX
from app.ratelimit import Limiter, Slot, Take, TakeResult, new_slot_id

_ATTEMPT_SECONDS_MAX = 60  # after which an attempt of a process that has died does not run any more
_WAIT_SECONDS, _PAUSE_SECONDS = 5.0, 0.05


@dataclass
class Reservation:
    """The units of one attempt, if the result is that they were taken. They are given back unless it `counts`."""

    result: TakeResult
    counts: bool = False


class Reservations:
    """Bounds how many attempts fail, whether they come one after another or together.

    The units of an attempt are taken before it runs, and given back at its end unless it counts: of a hundred that come
    together no more can fail than the limit lets through. An attempt that finds no units although some belong to
    attempts that still run waits for them. It is refused only once all that it was refused for has counted.
    """

    def __init__(self, limiter: Limiter, *, waiting_max: int) -> None:
        self._limiter = limiter
        self._may_wait = waiting_max

    @asynccontextmanager
    async def reserved(self, takes: Sequence[Take], *, group: str, subject: str) -> AsyncIterator[Reservation]:
        """Runs an attempt in the block. Attempts that may hold units of the same buckets have the same `subject`.

        Raises Unavailable where too many wait, or none of the running ones has given its units back in time.
        """
        # The slots have no bound that matters. What counts is that a held one shows that an attempt is running.
        slot = Slot(subject, CONCURRENCY_MAX, _ATTEMPT_SECONDS_MAX, new_slot_id())
        reservation = Reservation(await self._take_or_wait(takes, slot, group))
        try:
            yield reservation
        finally:
            if reservation.result.allowed:
                await self._end(takes, slot, group, counts=reservation.counts)

    async def _take_or_wait(self, takes: Sequence[Take], slot: Slot, group: str) -> TakeResult:
        result = await self._take(takes, slot, group)
        if result is not None:
            return result
        if self._may_wait == 0:
            raise Unavailable
        self._may_wait -= 1
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while result is None:
                    await asyncio.sleep(_PAUSE_SECONDS)
                    result = await self._take(takes, slot, group)
        except TimeoutError:
            raise Unavailable from None
        finally:
            self._may_wait += 1
        return result

    async def _take(self, takes: Sequence[Take], slot: Slot, group: str) -> TakeResult | None:
        """The result; None where the units may become free because attempts are running."""
        result = await self._limiter.take(takes, group=group, slot=slot)
        if result.allowed:
            return result
        # With one slot the same decision tells whether an attempt runs: asked for apart, it could have ended meanwhile.
        result = await self._limiter.take(takes, group=group, slot=slot._replace(slots=1))
        return None if result.no_free_slot else result

    async def _end(self, takes: Sequence[Take], slot: Slot, group: str, *, counts: bool) -> None:
        try:
            if not counts:
                await self._limiter.give_back(takes, group=group)  # before the slot is free: see `_take`
        finally:
            self._limiter.release(slot, group=group)
