"""Months of the ledger that are older than the operator keeps them: dropped whole, once `usage` holds their sums."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.db import create_engine_for_migrations
from app.core.logs import logger
from app.core.metrics import Metrics
from app.core.repeating import repeat
from app.core.security import time_prefix
from app.generations.collaborators import Generations
from app.generations.kept import OWNED
from app.generations.partitions import with_short_locks
from app.generations.reconcile import find_days, find_differences
from app.generations.sweep import delete_images
from app.models import Generation

_PRUNE_SECONDS = 3600
_OVERDUE_MAX = timedelta(days=1)
ADVISORY_LOCK = 7_340_215_866_190_447_283  # any number that nothing else locks


class MonthKeptError(Exception):
    """A month that is due cannot be dropped now. The text says why, for the operator."""


class Month(NamedTuple):
    """A partition of `generations` that is due: its table, and its ids from `low` up to and not including `high`."""

    table: str
    low: str
    high: str
    is_closed: bool
    oldest_kept: datetime
    """What is made or delivered from here on is kept."""

    @property
    def is_overdue(self) -> bool:
        return self.high <= time_prefix("gen", self.oldest_kept - _OVERDUE_MAX)


class Pruned(NamedTuple):
    """The tables that were dropped, and why the next one that is due was kept, if there is one."""

    dropped: Sequence[str]
    obstacle: str | None


@dataclass
class Pruner:
    """Drops the months of which all rows are older than `retention_days`, the oldest first, by the database's clock.

    A month is closed before it is looked at: a constraint refuses rows that are made from then on, so that what is
    found stays true. Its images are deleted, and its days compared with `usage`. One transaction then moves
    `deployment.generations_kept_from` and drops the table. A process that is killed at any time leaves counters that
    reconcile, and a month that is there as a whole or gone as a whole; the next turn goes on.

    While it runs, a month is closed within hours of being due. So one that is due for more than a day means that the
    database's clock is wrong, or `retention_days` is new, or nothing has run for long. Then none is dropped until an
    operator has done it, with `nanobanana ledger prune --yes`.

    Safe in any number of processes: one of them prunes at a time.
    """

    generations: Generations
    database_url: str
    """Without a pooler in transaction mode."""
    retention_days: int
    metrics: Metrics
    _stopped_at: str | None = field(default=None, init=False)

    async def run(self) -> None:
        """Prunes every hour until it is cancelled."""
        await repeat(self.prune, seconds=_PRUNE_SECONDS, task="prune")

    async def prune(self, *, is_confirmed: bool = False) -> Pruned:
        """Drops all months that are due; where it `is_confirmed`, also those that have been for more than a day."""
        dropped: list[str] = []
        try:
            async with self._alone() as connection:
                for month in await self._find_due(connection):
                    self._check_plausible(month, is_confirmed=is_confirmed)
                    await self._drop(connection, month)
                    dropped.append(month.table)
        except MonthKeptError as error:
            return Pruned(dropped, str(error))
        return Pruned(dropped, None)

    async def find_due(self) -> Sequence[Month]:
        """The months that are old enough, the oldest first."""
        async with self._connected() as connection:
            return await self._find_due(connection)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        engine = create_engine_for_migrations(self.database_url)
        try:
            async with engine.connect() as connection:
                await connection.execute(text(_SETTINGS))
                await connection.commit()
                yield connection
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[AsyncConnection]:
        """A connection that holds the lock of pruning for as long as it lives."""
        async with self._connected() as connection:
            if not await connection.scalar(text("select pg_try_advisory_lock(:n)"), {"n": ADVISORY_LOCK}):
                raise MonthKeptError("Another process prunes the ledger.")
            await connection.commit()
            yield connection

    async def _find_due(self, connection: AsyncConnection) -> Sequence[Month]:
        async with connection.begin():
            now: datetime = (await connection.execute(select(func.now()))).scalar_one()
            oldest_kept = now - timedelta(days=self.retention_days)
            due = await connection.execute(text(_DUE), {"oldest_kept": time_prefix("gen", oldest_kept)})
            return [Month(table, low, high, is_closed, oldest_kept) for table, low, high, is_closed in due]

    def _check_plausible(self, month: Month, *, is_confirmed: bool) -> None:
        """Counts each turn in which the month may not be dropped, and logs the first."""
        if is_confirmed or month.is_closed or not month.is_overdue:
            return
        self.metrics.pools.prunes_stopped.add()
        if self._stopped_at != month.table:
            self._stopped_at = month.table
            logger.error("prune_stopped", table=month.table, retention_days=self.retention_days)
        raise MonthKeptError(
            f"{month.table} has been due for more than a day: `nanobanana ledger prune --yes` drops it."
        )

    async def _drop(self, connection: AsyncConnection, month: Month) -> None:
        """Raises MonthKeptError, which is logged."""
        try:
            if not month.is_closed:
                await _check_rows(connection, month)
                await _close(connection, month)
            await delete_images(self.generations, Generation.id >= month.low, Generation.id < month.high)
            # From here on nothing of the month can change but to what allows dropping it.
            kept_from = await _check_rows(connection, month)
            await _check_references(connection, month)
            await _check_counted(connection, kept_from)
            await _change(connection, month, *_FORGET, kept_from=f"'{kept_from}'" if kept_from else "null")
        except MonthKeptError as error:
            logger.warning("month_kept", table=month.table, reason=str(error))
            raise
        logger.info("month_dropped", table=month.table, kept_from=kept_from and kept_from.isoformat())


_SETTINGS = "select set_config('statement_timeout', '0', false), set_config('lock_timeout', '50ms', false)"

_DUE = r"""
select quote_ident(c.relname), coalesce(substring(b.bound from $$FROM \('(.*)'\) TO$$), ''), b.high,
  exists (select from pg_constraint where conrelid = c.oid and conname = 'generations_closed' and convalidated)
from pg_inherits i join pg_class c on c.oid = i.inhrelid
cross join lateral (
  select pg_get_expr(c.relpartbound, c.oid) as bound,
    substring(pg_get_expr(c.relpartbound, c.oid) from $$TO \('(.*)'\)$$) collate "C" as high
) b
where i.inhparent = 'generations'::regclass and b.high <= :oldest_kept order by b.high
"""

_ROWS = """
select count(*) filter (where status in ('queued', 'processing')) as unfinished,
  coalesce(max(greatest(created_at, delivered_at)) >= :oldest_kept, false) as is_young,
  (max(delivered_at) at time zone 'UTC')::date + 1 as kept_from
from {table}
"""


async def _check_rows(connection: AsyncConnection, month: Month) -> date | None:
    """The UTC day after the last delivery of the month; None where nothing was delivered."""
    async with connection.begin():
        found = await connection.execute(text(_ROWS.format(table=month.table)), {"oldest_kept": month.oldest_kept})
        rows = found.one()
    if rows.unfinished:
        raise MonthKeptError(f"{month.table} has generations that are queued or processing.")
    if rows.is_young:
        raise MonthKeptError(f"{month.table} has generations that are younger than their ids say.")
    kept_from: date | None = rows.kept_from
    return kept_from


# Rows are dated by the database when they are made: none that comes later passes. Every row that is there does, so that
# it can still be updated, by a client that deletes its image for example.
_ADD_CLOSED = "alter table {table} add constraint generations_closed check (created_at < '{at}') not valid"
_DROP_CLOSED = "alter table {table} drop constraint if exists generations_closed"
_VALIDATE_CLOSED = "alter table {table} validate constraint generations_closed"


async def _close(connection: AsyncConnection, month: Month) -> None:
    """Refuses rows that are made from now on, in a moment, and then proves that no younger one came before."""
    await _change(connection, month, _DROP_CLOSED, _ADD_CLOSED, at=month.oldest_kept.isoformat())
    try:
        await _change(connection, month, _VALIDATE_CLOSED)
    except IntegrityError:
        await _change(connection, month, _DROP_CLOSED)
        raise MonthKeptError(f"{month.table} has generations that are younger than their ids say.") from None


_CLAIMED = """
select exists (select from claims where generation_id >= :low and generation_id < :high
  or exists (select from unnest(other_ids) each where each >= :low and each < :high))
"""
_MISPLACED = "select exists (select from generations_default where id < :high)"


async def _check_references(connection: AsyncConnection, month: Month) -> None:
    bounds = {"low": month.low, "high": month.high}
    of_month = Generation.id >= month.low, Generation.id < month.high
    kept = select(select(Generation.id).where(*OWNED, *of_month).exists())
    async with connection.begin():
        if await connection.scalar(kept):
            raise MonthKeptError(f"{month.table} has images that could not be deleted yet.")
        if await connection.scalar(text(_CLAIMED), bounds):
            raise MonthKeptError(f"{month.table} has generations that an Idempotency-Key still names.")
        if await connection.scalar(text(_MISPLACED), bounds):
            raise MonthKeptError("generations_default has older generations: move them into partitions.")


async def _check_counted(connection: AsyncConnection, kept_from: date | None) -> None:
    """All days whose generations are going to be incomplete must be those that `usage` has."""
    async with connection.begin():
        days = await find_days(connection)
    for day in days:
        if kept_from is not None and day < kept_from:
            async with connection.begin():
                if await find_differences(connection, day=day):
                    raise MonthKeptError(f"usage differs from the ledger on {day}: see `nanobanana usage reconcile`.")


_FORGET = (
    "update deployment set generations_kept_from = greatest(generations_kept_from, {kept_from}::date)",
    "lock table only generations in access exclusive mode",
    "alter table generations_default drop constraint if exists generations_kept",
    # An id of a dropped month has no partition any more, and must not be recorded a second time.
    "alter table generations_default add constraint generations_kept check (id >= '{high}')",
    "drop table {table}",
)


async def _change(connection: AsyncConnection, month: Month, *statements: str, **values: str) -> None:
    """Executes them in one transaction. Raises MonthKeptError where it does not get its locks."""

    async def execute() -> bool:
        for statement in statements:
            await connection.execute(text(statement.format(table=month.table, high=month.high, **values)))
        return True

    if not await with_short_locks(connection, execute, event="prune_waits"):
        raise MonthKeptError(f"{month.table} is in use: no lock on it was free.")
