"""Writes batches of entries and finds out what became of each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import asyncpg
from asyncpg.exceptions import DataError

from app.core.errors import ApiError, Invalid, Unavailable
from app.core.logs import logger
from app.features.keys.service import InvalidApiKey
from app.features.usage.ledger.entries import (
    Entry,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    LeaseLostError,
    Recorded,
    Settlement,
)
from app.features.usage.ledger.statements import (
    DOUBTS,
    EXPIRE,
    RECORD,
    RECORD_SKIP,
    SETTLE,
    SETTLED,
    SWEEP,
    TAKE_OVER,
)

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

    async def write(self, work: Sequence[Entry | Settlement]) -> Sequence[Entry | Settlement]:
        """Settles what is handed in by the server's verdict, and by nothing else; what has none yet comes back.

        It is to be handed in again: what was written before is then found and counts once.
        """
        entries = [each for each in work if isinstance(each, Entry)]
        settlements = [each for each in work if isinstance(each, Settlement)]
        with suppress(StatementRefusedError, StatementLostError, NotConnectedError):
            await self._record(entries, RECORD)
            await self._settle(settlements)
        unsettled = [each for each in work if not each.settled]
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
            rows = await self._fetch(connection, statement, *_columns(entries))
        except StatementRefusedError as refusal:
            _unsend(entries, ambiguous)
            await self._after_refusal(entries, statement, refusal.sqlstate)
            return
        doubts = []
        for entry, row, was_sent in zip(entries, rows, ambiguous, strict=True):
            if row["created_at"] is not None:
                entry.succeed(Recorded(entry.id, row["created_at"], other_ids=entry.other_ids))
            elif row["active"] or was_sent:
                doubts.append((entry, row["active"]))
            else:
                entry.fail(_inactive(row["active"]))
        _unsend(entries, ambiguous)
        if doubts:
            await self._resolve(connection, doubts)

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

    async def _resolve(self, connection: asyncpg.Connection, doubts: Sequence[tuple[Entry, bool | None]]) -> None:
        """Finds what is there in place of entries that were not written. The order of the questions is part of it."""
        entries = [entry for entry, _ in doubts]
        found = await self._fetch(connection, DOUBTS, [each.id for each in entries], [each.scope for each in entries])
        expired, lapsed = [], []
        for (entry, active), there in zip(doubts, found, strict=True):
            if there["id"] == entry.id:
                entry.succeed(Recorded(entry.id, there["created_at"], other_ids=entry.other_ids))
            elif active is None and entry.sent:
                continue  # an earlier send may be the very one that holds the key
            elif not active:
                entry.fail(_inactive(active))
            elif there["expired"]:
                expired.append(entry.scope)
            elif there["id"] is not None and not _answer_from(entry, there):
                lapsed.append(entry.scope)
        if expired:
            await self._fetch(connection, EXPIRE, expired)
        for scope in lapsed:
            await self._fetch(connection, TAKE_OVER, scope)

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        """Ends requests. A refusal says that none was ended: they are handed in again until their deadlines."""
        waiting = [each for each in settlements if not each.settled]
        if not waiting:
            return
        connection = await self._connected()
        for each in waiting:
            each.sent = True
        try:
            rows = await self._fetch(connection, SETTLE, *_columns(waiting))
        except StatementRefusedError as refusal:
            logger.warning("settlement_refused", sqlstate=refusal.sqlstate, settlements=len(waiting))
            middle = len(waiting) // 2
            for half in (waiting[:middle], waiting[middle:]) if middle else ():
                await self._settle(half)  # a key that somebody holds must not stop the others
            return
        doubts = [each for each, row in zip(waiting, rows, strict=True) if not row["settled"]]
        for each, row in zip(waiting, rows, strict=True):
            if row["settled"]:
                each.succeed(None)
        if doubts:
            found = await self._fetch(connection, SETTLED, [each.id for each in doubts])
            for each, there in zip(doubts, found, strict=True):
                if there["status"] == ("delivered" if each.is_delivered else "failed"):
                    each.succeed(None)  # by an earlier send
                else:
                    each.fail(LeaseLostError())

    async def _fetch(self, connection: asyncpg.Connection, statement: str, *parameters: Any) -> Rows:
        """The rows of one statement, once its transaction has committed.

        It is on its way before anything else of this turn runs, the answers to the batch before it above all: they are
        work for a millisecond, in which the server would have none.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                rows: Rows = await connection.fetch(statement, *parameters)
                return rows
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


def _answer_from(entry: Entry, there: asyncpg.Record) -> bool:
    """Answers by the request that has the entry's claim; False where its lease is over, and so is nobody's answer."""
    if there["fingerprint"] != entry.fingerprint:
        entry.fail(IdempotencyKeyReused())
    elif there["status"] == "delivered":
        replayed = Recorded(there["id"], there["created_at"], replayed=True, other_ids=there["other_ids"] or ())
        entry.succeed(replayed)
    elif there["lapsed"]:
        return False
    else:
        entry.fail(IdempotencyKeyInUse())
    return True


def _columns(work: Sequence[Entry] | Sequence[Settlement]) -> Sequence[Sequence[Any]]:
    """Their rows, one column after the other."""
    return list(zip(*chain.from_iterable(each.rows for each in work), strict=True))


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
