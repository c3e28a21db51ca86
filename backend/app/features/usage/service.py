"""How many images each key delivered on each UTC day, and the comparison of these counters with the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Null, case, cast, func, null, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core.cursor import Cursor
from app.core.errors import Invalid
from app.core.security import KeyEnvironment, is_id, time_prefix
from app.features.keys.service import KeyNotFound
from app.models import ApiKey, Generation, Usage

DAYS_DEFAULT = 30
_DAY = timedelta(days=1)

GroupBy = Literal["day", "key", "model"]

_FIRST_DAY = date(1970, 1, 1)

_DIFFERENCES = """
with recorded as (
  select key_id, model, count(*) as pictures, sum(list_price) as list_amount, coalesce(sum(cost), 0) as cost
  from generations
  where id >= :low and id < :high and status = 'delivered' and (delivered_at at time zone 'UTC')::date = :day
  group by key_id, model
), counted as (
  select key_id, model, pictures, list_amount, cost from usage where day = :day
)
select key_id, model, coalesce(c.pictures, 0), coalesce(r.pictures, 0), coalesce(c.list_amount, 0),
  coalesce(r.list_amount, 0)::bigint, coalesce(c.cost, 0), coalesce(r.cost, 0)::bigint
from counted c full join recorded r using (key_id, model)
where (c.pictures, c.list_amount, c.cost) is distinct from (r.pictures, r.list_amount, r.cost) order by key_id, model
"""


@dataclass(frozen=True)
class UsageRow:
    """How many images were delivered, and the sum of their list prices in millionths: on one UTC day, with one key or
    with one model, where these are not None.
    """

    date: date | None
    key_id: str | None
    key_name: str | None
    environment: KeyEnvironment | None
    model: str | None
    images: int
    list_amount: int

    @property
    def id(self) -> str:
        return self.key_id or self.model or ""

    @property
    def created_at(self) -> datetime:
        day = self.date or _FIRST_DAY
        return datetime(day.year, day.month, day.day, tzinfo=UTC)


@dataclass(frozen=True)
class Share:
    """How many images one of the busiest keys delivered on one UTC day; without a key, all other keys together."""

    date: date
    images: int
    key_id: str | None
    key_name: str | None
    environment: KeyEnvironment | None


@dataclass(frozen=True)
class Difference:
    """A key, a model and a UTC day whose counters differ from the delivered generations in the ledger: their number,
    and the sums of their list prices and costs in millionths.
    """

    date: date
    key_id: str
    model: str
    counted: int
    recorded: int
    counted_list_amount: int
    recorded_list_amount: int
    counted_cost: int
    recorded_cost: int


async def find_usage(
    session: AsyncSession,
    *,
    account_id: str,
    first: date | None,
    last: date | None,
    key_id: str | None,
    after: Cursor | None,
    limit: int,
    today: date,
    group_by: GroupBy | None = None,
) -> Sequence[UsageRow]:
    """The account's usage from `first` to `last`, both included, newest first: a row for each day and key, or for each
    day, key or model alone; at most `limit` rows, of those that follow `after`.

    Raises Invalid for days in the wrong order, and KeyNotFound for a key of another account.
    """
    last = last or today
    others = _DAY * (DAYS_DEFAULT - 1)
    first = first or max(date.min + others, last) - others
    if first > last:
        raise Invalid([{"parameter": "from", "detail": "Must not be after `to`"}])
    if key_id is not None:
        await _check_owner(session, account_id=account_id, key_id=key_id)
    by_day, by_key, by_model = group_by in {None, "day"}, group_by in {None, "key"}, group_by == "model"
    columns = (
        Usage.day if by_day else null(),
        *((Usage.key_id, ApiKey.name, ApiKey.environment) if by_key else (null(), null(), null())),
        Usage.model if by_model else null(),
    )
    statement = (
        select(*columns, _total(Usage.pictures), _total(Usage.list_amount))
        .join(ApiKey, ApiKey.id == Usage.key_id)
        .where(ApiKey.account_id == account_id, Usage.day.between(first, last))
    )
    if key_id is not None:
        statement = statement.where(Usage.key_id == key_id)
    order = {Usage.day: by_day, Usage.key_id: by_key, Usage.model: by_model}
    ordered_by = [column for column, is_grouped in order.items() if is_grouped]
    if after is not None:
        position = [after.created_at.date() if column is Usage.day else after.id for column in ordered_by]
        statement = statement.where(tuple_(*ordered_by) < tuple_(*position))
    grouped = statement.group_by(*(column for column in columns if not isinstance(column, Null)))
    newest_first = grouped.order_by(*(column.desc() for column in ordered_by)).limit(limit)
    rows: Sequence[Any] = (await session.execute(newest_first)).all()
    return [UsageRow(*row) for row in rows]


def _total(column: InstrumentedAttribute[int]) -> ColumnElement[int]:
    return cast(func.sum(column), BigInteger)


async def find_shares(
    session: AsyncSession, *, account_id: str, first: date, last: date, keys_max: int
) -> Sequence[Share]:
    """The account's usage from `first` to `last`, both included: at most `keys_max + 1` shares a day, oldest first. The
    `keys_max` keys that delivered most have a share of their own; all others are added up in one.
    """
    own = ApiKey.account_id == account_id, Usage.day.between(first, last)
    rank = func.row_number().over(order_by=(func.sum(Usage.pictures).desc(), Usage.key_id))
    ranked = select(Usage.key_id, rank.label("rank")).join(ApiKey, ApiKey.id == Usage.key_id).where(*own)
    busiest = ranked.group_by(Usage.key_id).subquery()
    is_named = busiest.c.rank <= keys_max
    key = case((is_named, Usage.key_id)), case((is_named, ApiKey.name)), case((is_named, ApiKey.environment))
    statement = (
        select(Usage.day, cast(func.sum(Usage.pictures), BigInteger), *key)
        .join(ApiKey, ApiKey.id == Usage.key_id)
        .join(busiest, busiest.c.key_id == Usage.key_id)
        .where(*own)
        .group_by(Usage.day, *key)
    )
    return [Share(*row) for row in await session.execute(statement.order_by(Usage.day, key[0].nulls_last()))]


async def _check_owner(session: AsyncSession, *, account_id: str, key_id: str) -> None:
    own = select(ApiKey.id).where(ApiKey.id == key_id, ApiKey.account_id == account_id)
    if not is_id("key", key_id) or await session.scalar(own) is None:
        raise KeyNotFound


async def find_days(session: AsyncSession) -> Sequence[date]:
    """Every UTC day from the first to the last on which an image was counted or delivered."""
    counted = (await session.execute(select(func.min(Usage.day), func.max(Usage.day)))).one()
    ends = select(Generation.delivered_at).where(Generation.delivered_at.is_not(None)).limit(1)
    oldest = await session.scalar(ends.order_by(Generation.id))
    newest = await session.scalar(ends.order_by(Generation.id.desc()))
    days = [day for day in (*counted, *(at.date() for at in (oldest, newest) if at is not None)) if day is not None]
    if not days:
        return []
    return [min(days) + _DAY * n for n in range((max(days) - min(days)).days + 1)]


async def find_differences(session: AsyncSession, *, day: date) -> Sequence[Difference]:
    """The keys whose counter differs from the ledger on this day. One statement reads both in one snapshot, so that
    generations that are recorded meanwhile make no difference.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    near = {"low": time_prefix("gen", midnight - _DAY), "high": time_prefix("gen", midnight + 2 * _DAY)}
    rows = (await session.execute(text(_DIFFERENCES), {"day": day, **near})).all()
    if rows:
        # An id may begin with the time of a machine whose clock was wrong: only what all of the ledger says is true.
        rows = (await session.execute(text(_DIFFERENCES), {"day": day, "low": "", "high": "~"})).all()
    return [Difference(day, *row) for row in rows]
