"""The partitions of `generations`: one for each month in UTC, made before its first row comes.

Ids begin with their time, so a month is a range of ids. A row whose month has no partition goes to the default one; it
is moved when the month's partition is made. Rows in the default partition mean that months are not made ahead.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.logs import logger
from app.core.security import time_prefix

_MONTHS_AHEAD = 2
_ADVISORY_LOCK = 4_127_880_964_219_033_451  # any number that nothing else locks
_TRIES = 5
_PAUSE_SECONDS = 0.2
_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED = "55P03", "40P01"
_QUERY_CANCELED = "57014"  # there are more rows to move than the statement has time for

Changed = TypeVar("Changed")

UNPRUNED = text("set local enable_partition_pruning = off")
"""For a transaction with a statement that locks generations and changes those it has locked: PostgreSQL 18 crashes
where such a statement looks up partitions (decision 55). The ledger's connections have the same setting.
"""


async def ensure_partitions(connection: AsyncConnection, now: datetime | None = None) -> Sequence[str]:
    """Makes the partitions of this month and of the next two where they are missing, and returns their names.

    Safe in any number of processes at once, and while rows are written: one process makes them, in transactions that
    wait for a lock for 50 ms at most. After five tries the rest is left to the next call; each failed one is logged.
    `connection` is not in a transaction. `now` is the database's time unless it is given.
    """
    made = await with_short_locks(connection, lambda: _make_missing(connection, now), event="partitions_not_made")
    return made or ()


async def with_short_locks(
    connection: AsyncConnection, change: Callable[[], Awaitable[Changed]], *, event: str
) -> Changed | None:
    """What `change` returns, called in a transaction that commits then. `change` sets a `lock_timeout` that is short.
    Where it does not get its locks it is called again; after five tries the result is None. Each failed one is logged.
    """
    for _ in range(_TRIES):
        try:
            async with connection.begin():
                return await change()
        except DBAPIError as error:
            sqlstate = getattr(error.orig, "sqlstate", None)
            if sqlstate not in {_LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED, _QUERY_CANCELED}:
                raise
            logger.warning(event, sqlstate=sqlstate)
        await asyncio.sleep(_PAUSE_SECONDS)
    return None


async def _make_missing(connection: AsyncConnection, now: datetime | None) -> Sequence[str]:
    database_now: datetime = (await connection.execute(text("select now()"))).scalar_one()
    missing = [begin for begin in _months(now or database_now) if await _is_missing(connection, begin)]
    if not missing or not await connection.scalar(text("select pg_try_advisory_xact_lock(:n)"), {"n": _ADVISORY_LOCK}):
        return ()
    for statement in _LOCK:
        await connection.execute(text(statement))
    missing = [begin for begin in missing if await _is_missing(connection, begin)]  # made before this has the lock
    for begin in missing:
        await _make(connection, begin)
    return [_name(begin) for begin in missing]


# The default partition may hold rows of the month, and gets no more while it is locked. The lock blocks statements that
# look into all partitions, for milliseconds; recording goes on.
_LOCK = (
    "set local lock_timeout = '50ms'",
    "set local statement_timeout = '2s'",
    "lock table only generations in share update exclusive mode",
    "lock table generations_default in access exclusive mode",
)

# Attached and not created as a partition: that would lock the whole table.
_MAKE = (
    "create table {name} (like generations including all)",
    """
    with moved as (delete from generations_default where id >= '{low}' and id < '{high}' returning *)
    insert into {name} select * from moved
    """,
    "alter table generations attach partition {name} for values from ('{low}') to ('{high}')",
)

_IS_COVERED = text(r"""
select exists (
  select from pg_inherits i join pg_class c on c.oid = i.inhrelid
  cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as bound) b
  where i.inhparent = 'generations'::regclass
    and cast(:low as text) collate "C" < substring(bound from $$TO \('(.*)'\)$$)
    and (bound like 'FOR VALUES FROM (MINVALUE)%' or cast(:low as text) collate "C"
      >= substring(bound from $$FROM \('(.*)'\) TO$$))
)
""")


async def _is_missing(connection: AsyncConnection, begin: datetime) -> bool:
    return not await connection.scalar(_IS_COVERED, {"low": _first_id(begin)})


async def _make(connection: AsyncConnection, begin: datetime) -> None:
    low, high = _first_id(begin), _first_id(_next_month(begin))
    for statement in _MAKE:
        await connection.execute(text(statement.format(name=_name(begin), low=low, high=high)))


def _months(now: datetime) -> Sequence[datetime]:
    """The begins of this month and of those that are made ahead."""
    begins = [now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)]
    for _ in range(_MONTHS_AHEAD):
        begins.append(_next_month(begins[-1]))
    return begins


def _next_month(begin: datetime) -> datetime:
    return (begin + timedelta(days=32)).replace(day=1)


def _name(begin: datetime) -> str:
    return f"generations_{begin:%Y_%m}"


def _first_id(begin: datetime) -> str:
    return time_prefix("gen", begin)
