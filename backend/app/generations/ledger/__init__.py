"""The ledger: what is recorded of generations, many in one commit, each exactly once.

Requests hand over work and wait. A writer gathers what is waiting and writes it in one statement, one transaction, on a
connection of its own; a request is answered when the commit that holds it has returned. One fsync serves many requests,
nothing is acknowledged before it is durable, and a crash loses only what was not acknowledged.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from app.core.errors import Unavailable
from app.core.logs import logger
from app.core.metrics import Metrics
from app.generations.errors import BudgetExceeded, InsufficientCredit, OutcomeUnknown
from app.generations.ledger.queue import (
    Outcome,
    Pending,
    PendingQuery,
    PendingRecord,
    PendingSend,
    PendingSettlement,
    Recorded,
    Work,
)
from app.generations.ledger.writer import Writer

_BATCH_MIN, _BATCH_MAX = 16, 64
_EXPIRE_SECONDS = 0.05
_SWEEP_SECONDS = 10


class Ledger:
    """Records generations. At most `queue_max` requests wait; each has its outcome within `deadline_seconds`."""

    def __init__(
        self, writer: Writer, *, queue_max: int, deadline_seconds: float, metrics: Metrics | None = None
    ) -> None:
        self._writer = writer
        metrics = metrics or Metrics()
        self._metrics, self._refused = metrics.database, metrics.billing.refusals
        self._metrics.queue.watch(lambda: len(self._waiting))
        self._queue_max = queue_max
        self._deadline_seconds = deadline_seconds
        self._waiting: deque[Work] = deque()
        self._being_written: Sequence[Work] = ()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_alive = False
        self._is_closing = False
        self._sweep_at = 0.0

    async def record(self, record: PendingRecord) -> Recorded:
        """What is on disk about this request once this returns: itself, counted once where it has no lease; or, where
        its idempotency key was used before, the request that was recorded then.

        Raises InvalidApiKey where the key is not active when the commit comes, CallerChangedError where what it may do
        has changed since admission, InsufficientCredit and BudgetExceeded where its price does not fit, QueueFull where
        the account has too many images waiting, Invalid where a value cannot be stored, IdempotencyKeyReused where the
        idempotency key came with another request, IdempotencyKeyInUse where the first request with it is still being
        drawn, Unavailable where it certainly was not recorded, and OutcomeUnknown where that cannot be known before the
        deadline. A caller who hangs up meanwhile changes nothing.
        """
        try:
            self._hand_over(record, waiting_max=self._queue_max)
            return await record.outcome
        except Exception as error:
            record.drop_error()  # as `_outcome_of`, which would cost each request a call more
            if isinstance(error, InsufficientCredit | BudgetExceeded):
                self._refused.add(error.code)
            elif isinstance(error, Unavailable):
                self._metrics.count_failure(is_unknown=isinstance(error, OutcomeUnknown))
            raise

    async def settle(self, settlement: PendingSettlement) -> None:
        """Ends a request that was recorded with a lease: once this returns its delivered images are delivered and
        counted and the others failed with their codes, all on disk, and where none was delivered its idempotency key is
        free again. Handed over again, it changes nothing.

        Raises LeaseLostError where its lease was over, and OutcomeUnknown where the outcome cannot be known before the
        deadline; what was not settled is given up when its lease is over. Takes place however much waits.
        """
        try:
            self._hand_over(settlement)
            await _outcome_of(settlement)
        except Unavailable as error:
            self._metrics.count_failure(is_unknown=isinstance(error, OutcomeUnknown))
            raise

    async def mark_sent(self, ids: Sequence[str], lease: UUID) -> None:
        """Marks the images of an asynchronous request as handed to a provider: once this returns nobody cancels them,
        and no other worker draws them.

        Raises LeaseLostError where they were cancelled or their lease was over: then they are not to be drawn. Raises
        Unavailable or OutcomeUnknown where they could not be marked before the deadline, as a rule.
        """
        send = PendingSend(ids, lease)
        self._hand_over(send)
        await _outcome_of(send)

    async def query(self, statement: str, **values: Any) -> Sequence[asyncpg.Record]:
        """The rows of one of `statements.QUERIES`, once it has committed.

        Raises Unavailable where it certainly was not carried out, and OutcomeUnknown where that cannot be known.
        """
        query = PendingQuery(statement, values)
        self._hand_over(query)
        return await _outcome_of(query)

    def _hand_over(self, work: Work, *, waiting_max: float = math.inf) -> None:
        if not self._is_alive or len(self._waiting) >= waiting_max:
            raise Unavailable
        work.deadline = time.monotonic() + self._deadline_seconds
        self._waiting.append(work)
        self._wake.set()

    @property
    def is_alive(self) -> bool:
        """Whether requests are being written."""
        return self._is_alive

    @property
    def needs_session(self) -> bool:
        """Whether nothing can be written because the database is behind a pooler in transaction mode."""
        return self._writer.needs_session

    def when_swept(self, listener: Callable[[Sequence[asyncpg.Record]], None]) -> None:
        """Has `listener` called with the asynchronous images about which a sweep decides: the rows of `sweep_jobs`."""
        self._writer.on_swept = listener

    def open(self) -> None:
        """Begins to write."""
        self._is_alive = True
        self._tasks = [asyncio.create_task(self._while_alive(each)) for each in (self._write(), self._expire())]

    async def close(self) -> None:
        """Writes what is waiting, and ends. Nothing may be handed over any more."""
        self._is_closing = True
        self._wake.set()
        writing, expiring = self._tasks
        await writing
        expiring.cancel()
        self._writer.close()

    async def _while_alive(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self._is_alive = False

    async def _write(self) -> None:
        while self._waiting or not self._is_closing:
            await self._wake.wait()
            self._being_written = self._next_batch()
            self._waiting.extendleft(reversed(await self._written(self._being_written)))
            self._being_written = ()
            if not self._waiting and not self._is_closing:
                self._wake.clear()

    async def _written(self, batch: Sequence[Work]) -> Sequence[Work]:
        """Writes a batch, and now and then sweeps; returns what has no outcome yet. A defect of ours ends neither the
        writer nor the requests after it.
        """
        try:
            without_outcome = await self._writer.write(batch) if batch else ()
            if time.monotonic() >= self._sweep_at and not self._is_closing:
                self._sweep_at = time.monotonic() + _SWEEP_SECONDS
                await self._writer.sweep()
        except Exception:
            logger.exception("ledger_failed")
            for each in batch:
                each.fail(OutcomeUnknown())
            return ()
        return without_outcome

    def _next_batch(self) -> Sequence[Work]:
        """Half of what waits, within bounds. Were all of it written at once, the callers who are answered together
        would ask together again, and the process would have nothing to do while they all wait.
        """
        waiting = len(self._waiting)
        size = min(waiting, max(waiting // 2, _BATCH_MIN), _BATCH_MAX)
        return [self._waiting.popleft() for _ in range(size)]

    async def _expire(self) -> None:
        """Gives an outcome to what is past its deadline. What waits and was never sent leaves the queue: it will never
        be written.
        """
        while True:
            await asyncio.sleep(_EXPIRE_SECONDS)
            now = time.monotonic()
            if now >= self._sweep_at:
                self._wake.set()  # a sweep is due, also where no request comes
            while self._waiting and self._waiting[0].deadline <= now:
                _expire(self._waiting.popleft())
            for each in self._being_written:
                if each.deadline <= now:
                    _expire(each)


async def _outcome_of(work: Pending[Outcome]) -> Outcome:
    """What became of the work. Raises the error that this is, and then forgets it: the error has the frames of its
    callers, and these have the work. They would hold each other, and with them all that the request has in memory.
    """
    try:
        return await work.outcome
    except Exception:
        work.drop_error()
        raise


def _expire(work: Work) -> None:
    work.fail(OutcomeUnknown() if work.was_sent else Unavailable())
