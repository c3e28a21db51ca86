"""The ledger's connection: a connection of its own with one statement in flight, and what its errors say."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import asyncpg
from asyncpg.exceptions import DataError

from app.core.cancellation import raise_if_cancelled
from app.core.clock import DatabaseClock
from app.core.database_connection import SettingsNotKeptError
from app.core.db import SCHEMA_GONE, Connect
from app.core.logs import logger
from app.core.metrics import Metrics
from app.generations.ledger.statements import FENCE, Statement
from app.generations.ledger.verdicts import DATA_CLASS

_ANSWER_SECONDS = 3.5  # the server's own statement_timeout is shorter: a server that is silent for longer is gone
LOCK_NOT_AVAILABLE = "55P03"
READ_ONLY = "25006"  # what was the primary is a standby now: another connection leads to the new one
_REFUSALS = {LOCK_NOT_AVAILABLE, "57014", READ_ONLY, *SCHEMA_GONE}  # sqlstates; the second is a cancelled statement
_REFUSAL_CLASSES = {"22", "23", "40", "53"}
NO_RESOURCES_CLASS = "53"  # disk full, out of memory, too many connections
_UNWRITABLE = SCHEMA_GONE
_UNWRITABLE_CLASSES = {"25", NO_RESOURCES_CLASS}  # the first is that of a read-only database

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


NO_VERDICT = (StatementRefusedError, StatementLostError, NotConnectedError)


class LedgerConnection:
    """One connection of its own, one statement in flight. The connection is made when it is needed."""

    def __init__(self, connect: Connect, clock: DatabaseClock | None = None, metrics: Metrics | None = None) -> None:
        self._connect = connect
        self._clock = clock
        self._connection: asyncpg.Connection | None = None
        self._name = secrets.token_hex(16)
        self._failed_connects = 0
        self.needs_session = False
        """Whether the last connection did not keep the settings of its session, as behind a pooler."""
        self._is_writable: bool | None = None
        self._metrics = (metrics or Metrics()).database
        self._metrics.writable.watch(lambda: self._is_writable is True)

    def close(self) -> None:
        """Drops the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

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
                if sqlstate == READ_ONLY:
                    self.close()
                raise StatementRefusedError(sqlstate) from None
        except (Exception, asyncio.CancelledError):
            raise_if_cancelled()
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
                self._connection = await self._fenced(await self._connect())
            except (Exception, asyncio.CancelledError) as error:  # of many kinds, and for a request each means the same
                raise_if_cancelled()
                self.needs_session = isinstance(error, SettingsNotKeptError)
                self._metrics.count_error(error)
                self._set_writable(is_writable=False, sqlstate=getattr(error, "sqlstate", None))
                self._failed_connects += 1
                if self._failed_connects.bit_count() == 1:  # the first, and then each time that there are twice as many
                    logger.warning("ledger_not_connected", tries=self._failed_connects, exc_info=True)
                raise NotConnectedError from None
            self._failed_connects, self.needs_session = 0, False
        return self._connection

    async def _fenced(self, connection: asyncpg.Connection) -> asyncpg.Connection:
        """The connection, once nothing goes on of what was sent on the one before it. Waits as long as for a lock."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connection.execute(FENCE.text, *FENCE.arguments({"writer": self._name}))
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _set_writable(self, *, is_writable: bool, sqlstate: str | None = None) -> None:
        if self._is_writable is not False and not is_writable:
            logger.error("database_not_writable", sqlstate=sqlstate)
        elif self._is_writable is False and is_writable:
            logger.info("database_writable_again")
        self._is_writable = is_writable
