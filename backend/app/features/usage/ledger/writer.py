"""Writes batches of entries and finds out what became of each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import asyncpg
from asyncpg.exceptions import DataError

from app.core.errors import ApiError, Invalid, Unavailable
from app.core.logs import logger
from app.features.keys.service import InvalidApiKey
from app.features.usage.ledger.entries import Entry, IdempotencyKeyReused, Recorded
from app.features.usage.ledger.statements import DOUBTS, EXPIRE, RECORD, RECORD_SKIP, SWEEP

_ANSWER_SECONDS = 3.5  # the server's own statement_timeout is shorter: whoever is silent for longer is gone
_PAUSE_SECONDS = 0.05
_LOCK_NOT_AVAILABLE = "55P03"
_REFUSALS = {_LOCK_NOT_AVAILABLE, "57014"}  # single sqlstates; the second is a cancelled statement
_REFUSAL_CLASSES = {"22", "23", "40", "53"}
_TRY_AGAIN_CLASS = "40"  # deadlock, serialisation failure
_NO_RESOURCES_CLASS = "53"  # disk full, out of memory, too many connections
_DATA_CLASS = "22"

Connect = Callable[[], Awaitable[asyncpg.Connection]]
Rows = Sequence[asyncpg.Record]


class StatementRefusedError(Exception):
    """The server has said that the statement failed: nothing of it was done."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class StatementLostError(Exception):
    """The statement was sent, and nobody has said what became of it."""


class NotConnectedError(Exception):
    """The statement was not sent."""


class Writer:
    """One connection of its own, one statement in flight. The connection is made when it is needed."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: asyncpg.Connection | None = None

    async def write(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Settles entries by the server's verdict, and by nothing else; those without one yet come back.

        They are to be handed in again: an entry that was written before is then found and counts once.
        """
        with suppress(StatementRefusedError, StatementLostError, NotConnectedError):
            await self._record(entries, RECORD)
        unsettled = [entry for entry in entries if not entry.settled]
        if unsettled:
            await asyncio.sleep(_PAUSE_SECONDS)
        return unsettled

    async def sweep(self) -> None:
        """Deletes some of the idempotency keys whose day is over. Another time, if it cannot be done now."""
        with suppress(StatementRefusedError, StatementLostError, NotConnectedError):
            await self._fetch(await self._connected(), SWEEP)

    def close(self) -> None:
        """Drops the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _record(self, entries: Sequence[Entry], statement: str) -> None:
        connection = await self._connected()
        entries = [entry for entry in entries if not entry.settled]  # what was refused meanwhile is never written
        if not entries:
            return
        ambiguous = [entry.sent for entry in entries]  # sent before, and nobody told what became of it
        for entry in entries:
            entry.sent = True
        try:
            rows = await self._fetch(connection, statement, *zip(*(entry.row for entry in entries), strict=True))
        except StatementRefusedError as refusal:
            _unsend(entries, ambiguous)
            await self._after_refusal(entries, statement, refusal.sqlstate)
            return
        doubts = []
        for entry, row, was_sent in zip(entries, rows, ambiguous, strict=True):
            if row["created_at"] is not None:
                entry.succeed(Recorded(entry.id, row["created_at"]))
            elif row["active"] or was_sent:
                doubts.append((entry, row["active"]))
            else:
                entry.fail(_inactive(row["active"]))
        _unsend(entries, ambiguous)
        if doubts:
            await self._settle(connection, doubts)

    async def _after_refusal(self, entries: Sequence[Entry], statement: str, sqlstate: str) -> None:
        """One bad row, or one key that somebody holds, must not stop the others."""
        logger.warning("ledger_refused", sqlstate=sqlstate, entries=len(entries))
        if sqlstate.startswith(_TRY_AGAIN_CLASS):
            return  # nothing was done; all of them are written again
        if sqlstate == _LOCK_NOT_AVAILABLE and statement is RECORD:
            await self._record(entries, RECORD_SKIP)
        elif len(entries) > 1 and not sqlstate.startswith(_NO_RESOURCES_CLASS):
            middle = len(entries) // 2
            await self._record(entries[:middle], statement)
            await self._record(entries[middle:], statement)
        else:
            for entry in entries:
                _refuse(entry, sqlstate)

    async def _settle(self, connection: asyncpg.Connection, doubts: Sequence[tuple[Entry, bool | None]]) -> None:
        """Finds what is there in place of entries that were not written. The order of the questions is part of it."""
        entries = [entry for entry, _ in doubts]
        found = await self._fetch(connection, DOUBTS, [each.id for each in entries], [each.scope for each in entries])
        expired = []
        for (entry, active), there in zip(doubts, found, strict=True):
            if there["id"] == entry.id:
                entry.succeed(Recorded(entry.id, there["created_at"]))
            elif active is None and entry.sent:
                continue  # an earlier send may be the very one that holds the key
            elif not active:
                entry.fail(_inactive(active))
            elif there["expired"]:
                expired.append(entry.scope)
            elif there["id"] is not None and there["fingerprint"] == entry.fingerprint:
                entry.succeed(Recorded(there["id"], there["created_at"], replayed=True))
            elif there["id"] is not None:
                entry.fail(IdempotencyKeyReused())
        if expired:
            await self._fetch(connection, EXPIRE, expired)

    async def _fetch(self, connection: asyncpg.Connection, statement: str, *columns: Sequence[Any]) -> Rows:
        """The rows of one statement, once its transaction has committed."""
        running = asyncio.ensure_future(connection.fetch(statement, *columns))
        running.add_done_callback(_look_at)
        await asyncio.wait({running}, timeout=_ANSWER_SECONDS)
        try:
            if running.done():
                return running.result()
        except (DataError, UnicodeEncodeError):  # refused by the driver, before it was sent
            raise StatementRefusedError(_DATA_CLASS) from None
        except asyncpg.PostgresError as error:
            sqlstate = error.sqlstate or ""
            if sqlstate in _REFUSALS or sqlstate[:2] in _REFUSAL_CLASSES:
                raise StatementRefusedError(sqlstate) from None
        except Exception:
            # Whatever else comes out of a driver whose connection broke says nothing about the commit.
            logger.warning("ledger_connection_lost", exc_info=True)
        self.close()
        raise StatementLostError

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._connect()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                logger.warning("ledger_not_connected", exc_info=True)
                raise NotConnectedError from None
        return self._connection


def _look_at(task: "asyncio.Task[list[asyncpg.Record]]") -> None:
    """An exception that nobody waits for any more is not worth a warning."""
    with suppress(asyncio.CancelledError):
        task.exception()


def _inactive(active: bool | None) -> ApiError:
    """Null is a key whose row was skipped because somebody holds it."""
    return InvalidApiKey() if active is False else Unavailable()


def _unsend(entries: Sequence[Entry], ambiguous: Sequence[bool]) -> None:
    """The server has told that this send wrote nothing for those that are not settled."""
    for entry, was_sent in zip(entries, ambiguous, strict=True):
        entry.sent = was_sent


def _refuse(entry: Entry, sqlstate: str) -> None:
    if entry.sent:
        return  # an earlier send may have been committed: only what is found decides, or the deadline
    if sqlstate.startswith(_DATA_CLASS):
        entry.fail(Invalid([{"pointer": "#", "detail": "Holds a value that cannot be stored"}]))
    else:
        entry.fail(Unavailable())
