"""Writes batches of pending work, and finds out what became of each."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import asyncpg
from asyncpg.exceptions import DataError

from app.core.clock import DatabaseClock
from app.core.database_connection import SettingsNotKeptError
from app.core.db import SCHEMA_GONE
from app.core.logs import logger
from app.core.metrics import Metrics
from app.generations.errors import LeaseLostError
from app.generations.ledger.columns import columns
from app.generations.ledger.queue import (
    RECORD_WORDS,
    PendingRecord,
    PendingSettlement,
    Recorded,
    RecordRow,
    SettleRow,
)
from app.generations.ledger.statements import (
    EXPIRE_CLAIMS,
    FIND_RECORDED,
    FIND_SETTLED,
    RECORD,
    RECORD_SKIP_LOCKED,
    SETTLE,
    SWEEP_CLAIMS,
    SWEEP_LAPSED,
    TAKE_OVER,
    Statement,
)
from app.generations.ledger.verdicts import DATA_CLASS, answer_from, not_admitted, refuse

_ANSWER_SECONDS = 3.5  # the server's own statement_timeout is shorter: a server that is silent for longer is gone
_PAUSE_SECONDS = 0.05
_LOCK_NOT_AVAILABLE = "55P03"
_READ_ONLY = "25006"  # what was the primary is a standby now: another connection leads to the new one
_REFUSALS = {_LOCK_NOT_AVAILABLE, "57014", _READ_ONLY, *SCHEMA_GONE}  # sqlstates; the second is a cancelled statement
_REFUSAL_CLASSES = {"22", "23", "40", "53"}
_TRY_AGAIN_CLASS = "40"  # deadlock, serialisation failure
_NO_RESOURCES_CLASS = "53"  # disk full, out of memory, too many connections
_UNWRITABLE = SCHEMA_GONE
_UNWRITABLE_CLASSES = {"25", _NO_RESOURCES_CLASS}  # the first is that of a read-only database

Connect = Callable[[], Awaitable[asyncpg.Connection]]
Rows = Sequence[asyncpg.Record]


class StatementRefusedError(Exception):
    """The server has said that the statement failed: nothing of it was done."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class StatementLostError(Exception):
    """The statement was sent, and the server has not said what became of it."""


class NotConnectedError(Exception):
    """The statement was not sent."""


_NO_VERDICT = (StatementRefusedError, StatementLostError, NotConnectedError)


class Writer:
    """One connection of its own, one statement in flight. The connection is made when it is needed.

    It sets `clock` whenever the database has said its time.
    """

    def __init__(self, connect: Connect, clock: DatabaseClock | None = None, metrics: Metrics | None = None) -> None:
        self._connect = connect
        self._clock = clock
        self._connection: asyncpg.Connection | None = None
        self._failed_connects = 0
        self.needs_session = False
        """Whether the last connection did not keep the settings of its session, as behind a pooler."""
        self._is_writable: bool | None = None
        self._metrics = (metrics or Metrics()).database
        self._metrics.writable.watch(lambda: self._is_writable is True)

    async def write(
        self, work: Sequence[PendingRecord | PendingSettlement]
    ) -> Sequence[PendingRecord | PendingSettlement]:
        """Gives each piece of work its outcome by the server's verdict, and by nothing else; returns what has none yet.

        That is to be handed in again: what was written before is then found, and counts once.
        """
        with suppress(*_NO_VERDICT):
            await self._record([each for each in work if isinstance(each, PendingRecord)], RECORD)
            await self._settle([each for each in work if isinstance(each, PendingSettlement)])
        without_outcome = [each for each in work if not each.is_done]
        if without_outcome:
            await asyncio.sleep(_PAUSE_SECONDS)
        return without_outcome

    async def sweep(self) -> None:
        """Marks as lost what is past its lease, and deletes idempotency keys whose day is over: some of each. What
        cannot be done now is done by the next sweep.
        """
        with suppress(*_NO_VERDICT):
            connection = await self._connected()
            [swept] = await self._fetch(connection, SWEEP_LAPSED)
            if self._clock is not None:
                self._clock.set(swept["now"])
            await self._fetch(connection, SWEEP_CLAIMS)

    def close(self) -> None:
        """Drops the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _record(self, records: Sequence[PendingRecord], statement: Statement) -> None:
        connection = await self._connected()
        records = [each for each in records if not each.is_done]  # one that was refused meanwhile is never written
        if not records:
            return
        sent_before = [each.was_sent for each in records]
        for each in records:
            each.was_sent = True
        try:
            rows = await self._commit(connection, statement, records)
        except StatementRefusedError as refusal:
            _restore(records, sent_before)
            await self._after_refusal(records, statement, refusal.sqlstate)
            return
        in_doubt = []
        for each, row, was_sent in zip(records, rows, sent_before, strict=True):
            if row["created_at"] is not None:
                each.succeed(Recorded(each.ids, row["created_at"]))
            elif was_sent or (row["active"] and row["current"]):
                in_doubt.append((each, row))
            else:
                each.fail(not_admitted(row))
        _restore(records, sent_before)
        if in_doubt:
            await self._resolve(connection, in_doubt)

    async def _after_refusal(self, records: Sequence[PendingRecord], statement: Statement, sqlstate: str) -> None:
        """One bad row, or one key that another transaction holds, must not stop the others."""
        logger.warning("ledger_refused", sqlstate=sqlstate, entries=len(records))
        if sqlstate.startswith(_TRY_AGAIN_CLASS) or sqlstate == _READ_ONLY:
            return  # nothing was done; all of them are written again
        if sqlstate == _LOCK_NOT_AVAILABLE and statement is RECORD:
            await self._record(records, RECORD_SKIP_LOCKED)
        elif len(records) > 1 and not sqlstate.startswith(_NO_RESOURCES_CLASS) and sqlstate not in SCHEMA_GONE:
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
                each.succeed(Recorded(each.ids, there["created_at"]))
            elif verdict["active"] is None and each.was_sent:
                continue  # an earlier send may be the very one that holds the key
            elif not (verdict["active"] and verdict["current"]):
                each.fail(not_admitted(verdict))
            elif there["expired"]:
                expired.append(each.scope)
            elif there["id"] is not None and not answer_from(each, there):
                lapsed.append(each.scope)
        if expired:
            await self._fetch(connection, EXPIRE_CLAIMS, scope=expired)
        for scope in lapsed:
            await self._fetch(connection, TAKE_OVER, scope=scope)

    async def _settle(self, settlements: Sequence[PendingSettlement]) -> None:
        """Ends requests. A refusal says that none was ended: they are handed in again until their deadlines."""
        pending = [each for each in settlements if not each.is_done]
        if not pending:
            return
        connection = await self._connected()
        for each in pending:
            each.was_sent = True
        try:
            rows = await self._commit(connection, SETTLE, pending)
        except StatementRefusedError as refusal:
            logger.warning("settlement_refused", sqlstate=refusal.sqlstate, settlements=len(pending))
            middle = 0 if refusal.sqlstate == _READ_ONLY else len(pending) // 2
            for half in (pending[:middle], pending[middle:]) if middle else ():
                await self._settle(half)  # a key that another transaction holds must not stop the others
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

    async def _commit(
        self,
        connection: asyncpg.Connection,
        statement: Statement,
        work: Sequence[PendingRecord] | Sequence[PendingSettlement],
    ) -> Rows:
        """The rows of the statement that records or settles this work."""
        values = columns(SettleRow, work) if statement is SETTLE else columns(RecordRow, work, words=RECORD_WORDS)
        started = time.monotonic()
        rows = await self._fetch(connection, statement, **values)
        self._metrics.count_commit(len(work), time.monotonic() - started)
        return rows

    async def _fetch(self, connection: asyncpg.Connection, statement: Statement, **values: Any) -> Rows:
        """The rows of one statement, once its transaction has committed.

        The statement is on its way before anything else of this turn of the event loop runs. The answers to the batch
        before it are work for a millisecond, in which the server would otherwise have nothing to do.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                rows: Rows = await connection.fetch(statement.text, *statement.arguments(values))
        except (DataError, UnicodeEncodeError):  # refused by the driver, before it was sent
            raise StatementRefusedError(DATA_CLASS) from None
        except asyncpg.PostgresError as error:
            sqlstate = error.sqlstate or ""
            self._metrics.count_error(error)
            if sqlstate in _UNWRITABLE or sqlstate[:2] in _UNWRITABLE_CLASSES:
                self._set_writable(is_writable=False, sqlstate=sqlstate)
            if sqlstate in _REFUSALS or sqlstate[:2] in _REFUSAL_CLASSES:
                if sqlstate == _READ_ONLY:
                    self.close()
                raise StatementRefusedError(sqlstate) from None
        except (Exception, asyncio.CancelledError):
            _raise_if_cancelled()
            # Any other error of a driver whose connection broke says nothing about the commit.
            logger.warning("ledger_connection_lost", exc_info=True)
        else:
            self._set_writable(is_writable=True)
            return rows
        self.close()
        raise StatementLostError

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._connect()
            except (Exception, asyncio.CancelledError) as error:  # of many kinds, and for a request each means the same
                _raise_if_cancelled()
                self.needs_session = isinstance(error, SettingsNotKeptError)
                self._metrics.count_error(error)
                self._set_writable(is_writable=False, sqlstate=getattr(error, "sqlstate", None))
                self._failed_connects += 1
                if self._failed_connects.bit_count() == 1:  # the first, and then each time that there are twice as many
                    logger.warning("ledger_not_connected", tries=self._failed_connects, exc_info=True)
                raise NotConnectedError from None
            self._failed_connects, self.needs_session = 0, False
        return self._connection

    def _set_writable(self, *, is_writable: bool, sqlstate: str | None = None) -> None:
        if self._is_writable is not False and not is_writable:
            logger.error("database_not_writable", sqlstate=sqlstate)
        elif self._is_writable is False and is_writable:
            logger.info("database_writable_again")
        self._is_writable = is_writable


def _raise_if_cancelled() -> None:
    """Raises the caught CancelledError again if this task is cancelled. A driver may also cancel a future of its own,
    and with it whatever waits for that; such an error must not end the task.
    """
    if (task := asyncio.current_task()) and task.cancelling():
        raise asyncio.CancelledError


def _restore(records: Sequence[PendingRecord], sent_before: Sequence[bool]) -> None:
    """The server has said that this send wrote nothing for those that have no outcome."""
    for each, was_sent in zip(records, sent_before, strict=True):
        each.was_sent = was_sent
