"""The ledger: what is recorded of generations, many in one commit, each exactly once.

Requests hand over an entry and wait. A writer gathers what is waiting and writes it in one statement, one transaction,
on a connection of its own; a request is answered when the commit that holds it has returned. One fsync serves many
requests, nothing is acknowledged before it is durable, and a crash loses only what nobody was told.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from app.core.errors import Unavailable
from app.core.logs import logger
from app.features.usage.ledger.entries import Entry, OutcomeUnknown, Recorded, Settlement
from app.features.usage.ledger.writer import Writer

_BATCH_MIN, _BATCH_MAX = 16, 64
_EXPIRE_SECONDS = 0.05
_SWEEP_SECONDS = 10


class Ledger:
    """Records generations. At most `queue_max` entries wait; each is settled within `deadline_seconds`."""

    def __init__(self, writer: Writer, *, queue_max: int, deadline_seconds: float) -> None:
        self._writer = writer
        self._queue_max = queue_max
        self._deadline_seconds = deadline_seconds
        self._waiting: deque[Entry | Settlement] = deque()
        self._sent: Sequence[Entry | Settlement] = ()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._sweep_at = 0.0

    async def record(self, entry: Entry) -> Recorded:
        """What is on disk about this generation once this returns: itself, counted once; or, where its idempotency key
        was used before, the generation that was recorded then.

        Raises InvalidApiKey where the key is not active when the commit comes, IdempotencyKeyReused where the key came
        with another request, IdempotencyKeyInUse where the first request with it is still being drawn, Unavailable
        where it certainly was not recorded, and OutcomeUnknown where nobody can tell before the deadline. Whoever hangs
        up meanwhile changes nothing.
        """
        if len(self._waiting) >= self._queue_max:
            raise Unavailable
        self._hand_over(entry)
        return await entry.outcome

    async def settle(self, settlement: Settlement) -> None:
        """Ends a request that was recorded with a lease: once this returns its pictures are delivered and counted, or
        failed and its idempotency key is free again, on disk.

        Raises LeaseLostError where another request has taken over, and OutcomeUnknown where nobody can tell before the
        deadline; what was not settled is given up when its lease is over. Takes place however much waits.
        """
        self._hand_over(settlement)
        await settlement.outcome

    def _hand_over(self, work: Entry | Settlement) -> None:
        if not self.alive:
            raise Unavailable
        work.deadline = time.monotonic() + self._deadline_seconds
        self._waiting.append(work)
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether entries are being written."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def open(self) -> None:
        """Begins to write."""
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._expire())]

    async def close(self) -> None:
        """Writes what is waiting, and ends. Nothing may be handed over any more."""
        self._closing = True
        self._wake.set()
        writing, expiring = self._tasks
        await writing
        expiring.cancel()
        self._writer.close()

    async def _write(self) -> None:
        while self._waiting or not self._closing:
            await self._wake.wait()
            self._sent = self._next_batch()
            try:
                again = await self._writer.write(self._sent) if self._sent else ()
            except Exception:
                logger.exception("ledger_failed")  # a defect of ours must not hang every request after it
                again = ()
                for entry in self._sent:
                    entry.fail(OutcomeUnknown())
            self._waiting.extendleft(reversed(again))
            self._sent = ()
            if time.monotonic() >= self._sweep_at and not self._closing:
                self._sweep_at = time.monotonic() + _SWEEP_SECONDS
                await self._writer.sweep()
            if not self._waiting and not self._closing:
                self._wake.clear()

    def _next_batch(self) -> Sequence[Entry | Settlement]:
        """Half of what waits, within bounds. Were all of it written at once, those who are answered together would ask
        together again, and the process would have nothing to do while they all wait.
        """
        waiting = len(self._waiting)
        size = min(waiting, max(waiting // 2, _BATCH_MIN), _BATCH_MAX)
        return [self._waiting.popleft() for _ in range(size)]

    async def _expire(self) -> None:
        """Settles what is past its deadline. What waits has never been sent, and leaves the queue: it will never be."""
        while True:
            await asyncio.sleep(_EXPIRE_SECONDS)
            now = time.monotonic()
            while self._waiting and self._waiting[0].deadline <= now:
                entry = self._waiting.popleft()
                entry.fail(OutcomeUnknown() if entry.sent else Unavailable())
            for entry in self._sent:
                if entry.deadline <= now:
                    entry.fail(OutcomeUnknown() if entry.sent else Unavailable())
