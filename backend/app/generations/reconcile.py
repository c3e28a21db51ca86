"""The comparison of usage with the ledger: for every key, model and UTC day, the counters and what was delivered.

Days before `deployment.generations_kept_from` are not compared: their generations may have been dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.clock import midnight
from app.core.security import time_prefix
from app.models import Deployment, Generation, Usage

_DAY = timedelta(days=1)
_LATEST = timedelta(days=4)
"""How long after it was asked for a job is delivered at the latest: it waits for most of a day, and an operator may
requeue it until a day after that.
"""

_DIFFERENCES = """
with recorded as (
  select key_id, model, count(*) as pictures, sum(list_price) as list_amount, sum(price) as amount,
    coalesce(sum(cost), 0) as cost
  from generations
  where id >= :low and id < :high and status = 'delivered' and (delivered_at at time zone 'UTC')::date = :day
  group by key_id, model
), counted as (
  select key_id, model, pictures, list_amount, amount, cost from usage where day = :day
)
select key_id, model, coalesce(c.pictures, 0), coalesce(r.pictures, 0), coalesce(c.list_amount, 0),
  coalesce(r.list_amount, 0)::bigint, coalesce(c.amount, 0), coalesce(r.amount, 0)::bigint, coalesce(c.cost, 0),
  coalesce(r.cost, 0)::bigint
from counted c full join recorded r using (key_id, model)
where (c.pictures, c.list_amount, c.amount, c.cost) is distinct from (r.pictures, r.list_amount, r.amount, r.cost)
  and :day >= coalesce((select generations_kept_from from deployment), '-infinity')
order by key_id, model
"""


@dataclass(frozen=True)
class Difference:
    """A key, a model and a UTC day whose counters differ from the delivered generations in the ledger: their number,
    and the sums of their list prices, of what was charged and of costs, in millionths.
    """

    date: date
    key_id: str
    model: str
    counted: int
    recorded: int
    counted_list_amount: int
    recorded_list_amount: int
    counted_amount: int
    recorded_amount: int
    counted_cost: int
    recorded_cost: int


async def find_kept_from(session: AsyncSession | AsyncConnection) -> date | None:
    """The first UTC day of which all generations are kept; None where none has been dropped."""
    return await session.scalar(select(Deployment.generations_kept_from))


async def find_days(session: AsyncSession | AsyncConnection) -> Sequence[date]:
    """Every UTC day from the first to the last on which an image was counted or delivered, of those whose generations
    are all kept.
    """
    kept_from = await find_kept_from(session) or date.min
    counted = (await session.execute(select(func.min(Usage.day), func.max(Usage.day)))).one()
    days = [day for day in (*counted, *await _find_first_and_last_delivery(session)) if day is not None]
    if not days:
        return []
    first = max(min(days), kept_from)
    return [first + _DAY * n for n in range((max(days) - first).days + 1)]


async def _find_first_and_last_delivery(session: AsyncSession | AsyncConnection) -> Sequence[date]:
    """Their UTC days. A job may be delivered days after what was asked for later."""
    is_delivered, deliveries = Generation.delivered_at.is_not(None), Generation.delivered_at
    made = select(Generation.created_at).where(is_delivered).limit(1)
    oldest = await session.scalar(made.order_by(Generation.id))
    newest = await session.scalar(made.order_by(Generation.id.desc()))
    if oldest is None or newest is None:
        return []
    early = Generation.id < time_prefix("gen", oldest + _LATEST)
    late = Generation.id >= time_prefix("gen", newest - _LATEST)
    first = await session.scalar(select(func.min(deliveries)).where(is_delivered, early))
    last = await session.scalar(select(func.max(deliveries)).where(is_delivered, late))
    return [at.astimezone(UTC).date() for at in (first, last) if at is not None]


async def find_differences(session: AsyncSession | AsyncConnection, *, day: date) -> Sequence[Difference]:
    """The keys whose counter differs from the ledger on this day. One statement reads both in one snapshot, so that
    generations that are recorded meanwhile make no difference.
    """
    start = midnight(day)
    near = {"low": time_prefix("gen", start - _DAY), "high": time_prefix("gen", start + 2 * _DAY)}
    rows = (await session.execute(text(_DIFFERENCES), {"day": day, **near})).all()
    if rows:
        # An id may begin with the time of a machine whose clock was wrong: only what all of the ledger says is true.
        rows = (await session.execute(text(_DIFFERENCES), {"day": day, "low": "", "high": "~"})).all()
    return [Difference(day, *row) for row in rows]
