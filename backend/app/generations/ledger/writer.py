"""Writes batches of pending work, and finds out what became of each."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from app.core.db import SCHEMA_GONE
from app.core.errors import Unavailable
from app.core.logs import logger
from app.generations.errors import LeaseLostError, OutcomeUnknown
from app.generations.ledger.batches import (
    SKIPPING_LOCKED,
    record_batches,
    recorded_values,
    settled_values,
    settlement_batches,
)
from app.generations.ledger.connection import (
    LOCK_NOT_AVAILABLE,
    NO_RESOURCES_CLASS,
    NO_VERDICT,
    READ_ONLY,
    LedgerConnection,
    NotConnectedError,
    Rows,
    StatementLostError,
    StatementRefusedError,
)
from app.generations.ledger.queue import PendingQuery, PendingRecord, PendingSend, PendingSettlement, Recorded, Work
from app.generations.ledger.statements import (
    DISCARD_PLANS,
    EXPIRE_CLAIMS,
    FIND_RECORDED,
    FIND_SETTLED,
    MAKE_LANES,
    MARK_SENT,
    QUERIES,
    SWEEP_CLAIMS,
    SWEEP_JOBS,
    SWEEP_LAPSED,
    TAKE_OVER,
    Statement,
)
from app.generations.ledger.verdicts import AGAIN, answer_from, left_of, not_admitted, refusal_of, refuse

_PAUSE_SECONDS = 0.05
_TRY_AGAIN_CLASS = "40"  # deadlock, serialisation failure
ATTEMPTS_MAX = 3
"""How often workers may take an asynchronous request and fall silent with it, before it has failed."""


class Writer(LedgerConnection):
    """The connection, by which work gets its outcome. It sets `clock` whenever the database has said its time."""

    on_swept: Callable[[Rows], None] | None = None
    """Called with the rows of `sweep_jobs.sql`: each asynchronous image that a sweep has decided about, what it
    becomes, and its error.
    """
    waiting_max = 1_000_000
    """Images that may wait in one lane."""

    async def write(self, work: Sequence[Work]) -> Sequence[Work]:
        """Gives each piece of work its outcome by the server's verdict, and by nothing else; returns what has none yet.

        That is to be handed in again, before anything else: what was written before is then found, and counts once.
        """
        self._again: list[PendingRecord] = []
        by_type: defaultdict[type[Work], list[Any]] = defaultdict(list)
        for each in work:
            by_type[type(each)].append(each)
        with suppress(*NO_VERDICT):
            for statement, records in record_batches(by_type[PendingRecord]):
                await self._record(records, statement)
            for statement, settlements in settlement_batches(by_type[PendingSettlement]):
                await self._settle(settlements, statement)
            await self._mark_sent(by_type[PendingSend])
        for query in by_type[PendingQuery]:
            if not query.is_done:
                await self._query(query)
        without_outcome = [each for each in work if not each.is_done]
        if len(without_outcome) > sum(not each.is_done for each in self._again):
            await asyncio.sleep(_PAUSE_SECONDS)
        return without_outcome

    async def sweep(self) -> None:
        """Marks as lost what is past its lease, and deletes idempotency keys whose day is over: some of each. What
        cannot be done now is done by the next sweep.
        """
        with suppress(*NO_VERDICT):
            connection = await self._connected()
            [swept] = await self._fetch(connection, SWEEP_LAPSED)
            if self._clock is not None:
                self._clock.set(swept["now"])
            await self._fetch(connection, SWEEP_CLAIMS)
            decided = await self._fetch(connection, SWEEP_JOBS, attempts_max=ATTEMPTS_MAX)
            await self._fetch(connection, DISCARD_PLANS)
            if decided and self.on_swept is not None:
                self.on_swept(decided)

    async def _record(self, records: Sequence[PendingRecord], statement: Statement) -> None:
        if records:
            connection = await self._connected()
            records = [each for each in records if not each.is_done]  # one that was refused meanwhile is never written
        if not records:
            return
        sent_before = [each.was_sent for each in records]
        for each in records:
            each.was_sent = True
        try:
            values = recorded_values(statement, records, waiting_max=self.waiting_max)
            rows = await self._commit(connection, statement, values, size=len(records))
        except StatementRefusedError as refusal:
            _restore(records, sent_before)
            await self._after_refusal(records, statement, refusal.sqlstate)
            return
        judged = zip(records, rows, sent_before, strict=True)
        undecided = [(each, row) for each, row, was_sent in judged if not _decide(each, row, was_sent=was_sent)]
        _restore(records, sent_before)
        self._again += [each for each, row in undecided if row.get("refusal") == AGAIN]
        undecided = [(each, row) for each, row in undecided if row.get("refusal") != AGAIN]
        without_lanes = [each for each, row in undecided if row.get("has_lane") is False]
        if in_doubt := [(each, row) for each, row in undecided if row.get("has_lane") is not False]:
            await self._resolve(connection, in_doubt)
        if without_lanes:
            await self._make_lanes(connection, without_lanes)
            if statement.name in SKIPPING_LOCKED:  # where locked lanes are passed over, they may be there and be locked
                await self._record(without_lanes, statement)

    async def _make_lanes(self, connection: asyncpg.Connection, records: Sequence[PendingRecord]) -> None:
        """Makes the lanes that these are to wait in."""
        classes = [each.queueing.job_class for each in records if each.queueing is not None]
        await self._fetch(connection, MAKE_LANES, **{"key_id": [each.key_id for each in records], "class": classes})

    async def _after_refusal(self, records: Sequence[PendingRecord], statement: Statement, sqlstate: str) -> None:
        """One bad row, or one key that another transaction holds, must not stop the others."""
        logger.warning("ledger_refused", sqlstate=sqlstate, entries=len(records))
        if sqlstate.startswith(_TRY_AGAIN_CLASS) or sqlstate == READ_ONLY:
            return  # nothing was done; all of them are written again
        if sqlstate == LOCK_NOT_AVAILABLE and (skipping := SKIPPING_LOCKED.get(statement.name)):
            await self._record(records, skipping)
        elif len(records) > 1 and not sqlstate.startswith(NO_RESOURCES_CLASS) and sqlstate not in SCHEMA_GONE:
            middle = len(records) // 2
            await self._record(records[:middle], statement)
            await self._record(records[middle:], statement)
        else:
            for each in records:
                refuse(each, sqlstate)

    async def _resolve(
        self, connection: asyncpg.Connection, in_doubt: Sequence[tuple[PendingRecord, asyncpg.Record]]
    ) -> None:
        """Finds what is there in place of requests that were not written. What an earlier send recorded comes
        first: it stands although the key has been revoked since. Only an active key is given a claim's answer.
        """
        records = [each for each, _ in in_doubt]
        ids, scopes = [each.id for each in records], [each.scope for each in records]
        found = await self._fetch(connection, FIND_RECORDED, id=ids, scope=scopes)
        expired, lapsed = [], []
        for (each, verdict), there in zip(in_doubt, found, strict=True):
            if there["id"] == each.id:
                is_unfinished = each.queueing is not None and there["status"] != "delivered"
                each.succeed(Recorded(each.ids, there["created_at"], is_unfinished=is_unfinished))
            elif verdict["active"] is None and each.was_sent:
                continue  # an earlier send may be the very one that holds the key
            elif not (verdict["active"] and verdict["current"]):
                each.fail(not_admitted(verdict))
            elif there["id"] is None and (refusal := refusal_of(verdict)) is not None:
                each.fail(refusal)
            elif there["expired"]:
                expired.append(each.scope)
            elif there["id"] is not None and not answer_from(each, there):
                lapsed.append(each.scope)
        if expired:
            await self._fetch(connection, EXPIRE_CLAIMS, scope=expired)
        for scope in lapsed:
            await self._fetch(connection, TAKE_OVER, scope=scope)

    async def _settle(self, settlements: Sequence[PendingSettlement], statement: Statement) -> None:
        """Ends requests. A refusal says that none was ended: they are handed in again until their deadlines."""
        pending = [each for each in settlements if not each.is_done]
        if not pending:
            return
        connection = await self._connected()
        for each in pending:
            each.was_sent = True
        try:
            rows = await self._commit(connection, statement, settled_values(pending), size=len(pending))
        except StatementRefusedError as refusal:
            logger.warning("settlement_refused", sqlstate=refusal.sqlstate, settlements=len(pending))
            middle = 0 if refusal.sqlstate == READ_ONLY else len(pending) // 2
            for half in (pending[:middle], pending[middle:]) if middle else ():
                await self._settle(half, statement)  # a key that another transaction holds must not stop the others
            return
        in_doubt = [each for each, row in zip(pending, rows, strict=True) if not row["settled"]]
        for each, row in zip(pending, rows, strict=True):
            if row["settled"]:
                each.succeed(None)
        if in_doubt:
            ids, leases = [each.id for each in in_doubt], [each.lease for each in in_doubt]
            found = await self._fetch(connection, FIND_SETTLED, id=ids, lease=leases)
            for each, there in zip(in_doubt, found, strict=True):
                if there["status"] == each.status:
                    each.succeed(None)  # by an earlier send
                else:
                    each.fail(LeaseLostError())

    async def _mark_sent(self, sends: Sequence[PendingSend]) -> None:
        """A refusal says that none was marked: they are handed in again until their deadlines."""
        pending = [each for each in sends if not each.is_done]
        if not pending:
            return
        connection = await self._connected()
        ids = [image for each in pending for image in each.ids]
        leases = [each.lease for each in pending for _ in each.ids]
        for each in pending:
            each.was_sent = True
        rows = iter(await self._fetch(connection, MARK_SENT, id=ids, lease=leases))
        for each in pending:
            images = [next(rows) for _ in each.ids]
            if all(image["marked"] for image in images):
                each.succeed(None)
            elif not all(image["held"] for image in images):
                each.fail(LeaseLostError())

    async def _query(self, query: PendingQuery) -> None:
        try:
            connection = await self._connected()
            query.was_sent = True
            query.succeed(await self._fetch(connection, QUERIES[query.statement], **query.values))
        except StatementLostError:
            query.fail(OutcomeUnknown())
        except (StatementRefusedError, NotConnectedError):
            query.fail(Unavailable())

    async def _commit(
        self, connection: asyncpg.Connection, statement: Statement, values: Mapping[str, Any], *, size: int
    ) -> Rows:
        """The rows of a statement that records or settles so many requests."""
        started = time.monotonic()
        rows = await self._fetch(connection, statement, **values)
        self._metrics.count_commit(size, time.monotonic() - started)
        return rows


def _decide(record: PendingRecord, row: asyncpg.Record, *, was_sent: bool) -> bool:
    """Gives the request its outcome, if the row alone says it."""
    if row["created_at"] is not None:
        is_unfinished, left = record.queueing is not None, left_of(record, row)
        record.succeed(Recorded(record.ids, row["created_at"], is_unfinished=is_unfinished, left=left))
    elif not was_sent and not (row["active"] and row["current"]):
        record.fail(not_admitted(row))
    elif was_sent or record.claim is not None or (refusal := refusal_of(row)) is None:
        return False
    else:
        record.fail(refusal)
    return True


def _restore(records: Sequence[PendingRecord], sent_before: Sequence[bool]) -> None:
    """The server has said that this send wrote nothing for those that have no outcome."""
    for each, was_sent in zip(records, sent_before, strict=True):
        each.was_sent = was_sent
