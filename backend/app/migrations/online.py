"""Steps of migrations that run while the service does.

Each step is a transaction of its own. Either it holds locks that block the service for milliseconds only, or it takes
locks that do not block reading and writing rows. A migration that was killed between two steps is run again from its
beginning, so every step does nothing where its work is done already.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from alembic import op
from sqlalchemy import Connection, CursorResult, text
from sqlalchemy.exc import DBAPIError

from app.core.logs import logger

# Shorter than deadlock_timeout: in a deadlock with a statement of the service, the migration gives up first.
_LOCK_TIMEOUT_MS = 40
_PAUSE_SECONDS = 0.1
_TRIES = 1000
# PostgreSQL cancels an autovacuum only for a statement that has waited for deadlock_timeout. While there is one, a try
# in ten waits for longer than that, and for less than the lock_timeout of the service's statements.
_LONG_TRY = 10
_LONG_TRY_MARGIN_MS = 200
_LONG_TRY_MAX_MS = 1500
_IS_VACUUMING = """
select exists (
  select from pg_locks where mode = 'ShareUpdateExclusiveLock' and granted and pid <> pg_backend_pid()
    and database = (select oid from pg_database where datname = current_database())
)
"""
_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED = "55P03", "40P01"
_LOG_SECONDS = 10
_PARTITIONS = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'generations'::regclass order by c.relname
"""

Result = TypeVar("Result")


@contextmanager
def online_steps() -> Iterator["OnlineSteps"]:
    """The steps of a migration, on its own connection, which commits every statement by itself meanwhile."""
    with op.get_context().autocommit_block():
        steps = OnlineSteps(op.get_bind())
        before = steps.scalar("show lock_timeout")
        yield steps
        steps.set_lock_timeout(before)


class OnlineSteps:
    """What a migration can do with tables that are in use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        deadlock_timeout = self.scalar("select setting::int from pg_settings where name = 'deadlock_timeout'")
        self._long_try_ms = min(deadlock_timeout + _LONG_TRY_MARGIN_MS, _LONG_TRY_MAX_MS)

    def execute(self, statement: str, **parameters: object) -> CursorResult[Any]:
        """Executes one statement; tries again until it gets its locks, without blocking the service meanwhile."""
        return self._until_locked(lambda: self._connection.execute(text(statement), parameters))

    def execute_together(self, *statements: str, lock: tuple[str, ...] = ()) -> None:
        """Executes statements without results as one transaction, sent as one: a slow client cannot hold its locks.

        The tables named by `lock` are locked first, in this order. Where there are several, autovacuum is cancelled on
        each one alone right before, so that no table stays locked for long while the next one is waited for.
        """
        locks = [f"lock table {table} in access exclusive mode" for table in lock]
        alone = [[each] for each in locks[1:]]
        if alone:
            locks.insert(1, f"perform set_config('lock_timeout', '{_LOCK_TIMEOUT_MS}', true)")

        def execute() -> None:
            for transaction in [*alone, [*locks, *statements]]:
                body = "\n".join(f"{statement};" for statement in transaction)
                self._connection.execute(text(f"do $together$ begin\n{body}\nend $together$"))

        self._until_locked(execute)

    def execute_patiently(self, statement: str) -> None:
        """Executes one statement whose lock does not block reading and writing rows, and waits for it without end.

        Such are `create index concurrently`, `validate constraint`, `vacuum` and `analyze`.
        """
        self.set_lock_timeout("0")
        self._connection.execute(text(statement))

    def execute_in_batches(self, statement: str, *, at_once: int) -> None:
        """Executes a statement for `at_once` rows at a time, until there are no more.

        The statement takes the rows behind the id `:after` in order of id, `:at_once` at most, and returns the last id
        that it took, or null.
        """
        after, logged_at = "", time.monotonic()
        while (last := self.execute(statement, after=after, at_once=at_once).scalar()) is not None:
            after = last
            if time.monotonic() > logged_at + _LOG_SECONDS:
                logged_at = time.monotonic()
                logger.info("migrating", after=after)

    def create_index(self, name: str, on: str, *, unique: bool = False) -> None:
        """Creates an index while rows are written. One that an earlier run left half built is dropped first."""
        is_valid = self.scalar("select indisvalid from pg_index where indexrelid = to_regclass(:name)", name=name)
        if is_valid is False:
            self.execute_patiently(f"drop index concurrently {name}")
        if not is_valid:
            kind = "unique index" if unique else "index"
            self.execute_patiently(f"create {kind} concurrently {name} on {on}")

    def create_index_of_generations(self, name: str, on: str, *, suffix: str) -> None:
        """Creates an index of each partition while rows are written, named after the partition with the suffix; then of
        the whole table, which has nothing left to read.
        """
        for partition in self.execute(_PARTITIONS).scalars().all():
            self.create_index(f"{partition}_{suffix}", f"{partition} {on}")
        self.execute(f"create index if not exists {name} on generations {on}")

    def has_constraint(self, table: str, name: str) -> bool:
        """Whether the table has a constraint of this name."""
        count = "select count(*) from pg_constraint where conrelid = to_regclass(:table) and conname = :name"
        return bool(self.scalar(count, table=table, name=name))

    def has_column(self, table: str, name: str, *, not_null: bool = False) -> bool:
        """Whether the table has a column of this name, and, with `not_null`, one that cannot be null."""
        count = """
            select count(*) from pg_attribute
            where attrelid = to_regclass(:table) and attname = :name and (attnotnull or not :not_null)
        """
        return bool(self.scalar(count, table=table, name=name, not_null=not_null))

    def scalar(self, query: str, **parameters: object) -> Any:
        """The only value that a query returns, or None."""
        return self._connection.execute(text(query), parameters).scalar()

    def set_lock_timeout(self, value: str) -> None:
        """How long the next statements wait for a lock, as PostgreSQL writes it: `40ms`, or `0` for without end."""
        self._connection.execute(text("select set_config('lock_timeout', :value, false)"), {"value": value})

    def _until_locked(self, action: Callable[[], Result]) -> Result:
        for number in range(1, _TRIES):
            is_long = number % _LONG_TRY == 0 and self.scalar(_IS_VACUUMING)
            self.set_lock_timeout(f"{self._long_try_ms if is_long else _LOCK_TIMEOUT_MS}ms")
            try:
                return action()
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in {_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED}:
                    raise
            time.sleep(_PAUSE_SECONDS)
        return action()
