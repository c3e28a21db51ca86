"""How many images each key delivered on each UTC day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import compress
from typing import Any, Literal

from sqlalchemy import Null, case, func, null, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import midnight
from app.core.cursor import Cursor
from app.core.errors import Invalid
from app.core.security import KeyEnvironment, is_id
from app.features.keys.service import KeyNotFound
from app.models import ApiKey, Usage
from app.models.base import total

DAYS_DEFAULT = 30
_DAY = timedelta(days=1)

GroupBy = Literal["day", "key", "model"]

_FIRST_DAY = date(1970, 1, 1)


@dataclass(frozen=True)
class UsageRow:
    """How many images were delivered, and the sums of their list prices and of what was charged for them, in
    millionths: on one UTC day, with one key or with one model, where these are not None.
    """

    date: date | None
    key_id: str | None
    key_name: str | None
    environment: KeyEnvironment | None
    model: str | None
    images: int
    list_amount: int
    amount: int

    @property
    def id(self) -> str:
        return self.key_id or self.model or ""

    @property
    def created_at(self) -> datetime:
        return midnight(self.date or _FIRST_DAY)


@dataclass(frozen=True)
class Share:
    """How many images one of the busiest keys delivered on one UTC day; without a key, all other keys together."""

    date: date
    images: int
    key_id: str | None
    key_name: str | None
    environment: KeyEnvironment | None


async def find_usage(
    session: AsyncSession,
    *,
    account_id: str,
    first: date | None,
    last: date,
    limit: int,
    key_id: str | None = None,
    after: Cursor | None = None,
    group_by: GroupBy | None = None,
) -> Sequence[UsageRow]:
    """The account's usage from `first`, by default 30 days, to `last`, both included, newest first: a row for each day
    and key, or for each day, key or model alone; at most `limit` rows, of those that follow `after`.

    Raises Invalid for days in the wrong order, and KeyNotFound for a key of another account.
    """
    first = _first_day(first, last)
    meant = [ApiKey.account_id == account_id, Usage.day.between(first, last)]
    if key_id is not None:
        await _check_owner(session, account_id=account_id, key_id=key_id)
        meant.append(Usage.key_id == key_id)
    by_day, by_key, by_model = group_by in {None, "day"}, group_by in {None, "key"}, group_by == "model"
    columns = (
        Usage.day if by_day else null(),
        *((Usage.key_id, ApiKey.name, ApiKey.environment) if by_key else (null(), null(), null())),
        Usage.model if by_model else null(),
    )
    statement = (
        select(*columns, total(Usage.pictures), total(Usage.list_amount), total(Usage.amount))
        .join(ApiKey, ApiKey.id == Usage.key_id)
        .where(*meant)
    )
    ordered_by = list(compress((Usage.day, Usage.key_id, Usage.model), (by_day, by_key, by_model)))
    if after is not None:
        position = [after.created_at.date() if column is Usage.day else after.id for column in ordered_by]
        statement = statement.where(tuple_(*ordered_by) < tuple_(*position))
    grouped = statement.group_by(*(column for column in columns if not isinstance(column, Null)))
    newest_first = grouped.order_by(*(column.desc() for column in ordered_by)).limit(limit)
    rows: Sequence[Any] = (await session.execute(newest_first)).all()
    return [UsageRow(*row) for row in rows]


def _first_day(first: date | None, last: date) -> date:
    others = _DAY * (DAYS_DEFAULT - 1)
    first = first or max(date.min + others, last) - others
    if first > last:
        raise Invalid([{"parameter": "from", "detail": "Must not be after `to`"}])
    return first


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
        select(Usage.day, total(Usage.pictures), *key)
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
