"""What was charged in a time, what has paid for it, and what the images have cost: by day, model, account or key."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import date, timedelta
from typing import Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import midnight
from app.core.security import time_prefix

RevenueBy = Literal["day", "model", "account", "key"]

_DAY = timedelta(days=1)
_NOT_KNOWN = "cast(null as text)"
_GROUPS: dict[RevenueBy, tuple[str, str, str]] = {
    "day": ("to_char(day, 'YYYY-MM-DD')",) * 3,
    "model": ("usage.model", "model", _NOT_KNOWN),
    "account": ("api_keys.account_id", "account_id", "account_id"),
    "key": ("usage.key_id", "key_id", _NOT_KNOWN),
}
"""By which column the rows of `usage`, `generations` and `charges` are summed up. What has paid is known of an account,
and not of its keys.
"""

_REVENUE = """
with counted as (
  select {of_usage} as name, sum(amount) as amount, sum(cost) as cost
  from usage join api_keys on api_keys.id = usage.key_id
  where day between :first and :last and (cast(:accounts as text[]) is null or api_keys.account_id = any(:accounts))
  group by 1
), undelivered as (
  select {of_generations} as name, sum(cost) as cost from generations, cast(:first as date) as day
  where id >= :low and id < :high and status in ('failed', 'lost', 'cancelled') and cost > 0
    and (cast(:accounts as text[]) is null or account_id = any(:accounts))
  group by 1
), paid as (
  select {of_charges} as name, sum(from_allowance) as from_allowance, sum(from_credit) as from_credit,
    sum(billed) as billed
  from charges, cast(:first as date) as day
  where hour >= :midnight and hour < :end and {of_charges} is not null
    and (cast(:accounts as text[]) is null or account_id = any(:accounts))
  group by 1
)
select name, coalesce(c.amount, 0)::bigint, coalesce(c.cost, 0)::bigint + coalesce(u.cost, 0)::bigint,
  coalesce(p.from_allowance, 0)::bigint, coalesce(p.from_credit, 0)::bigint, coalesce(p.billed, 0)::bigint
from counted c full join undelivered u using (name) full join paid p using (name) order by name
"""


@dataclass(frozen=True)
class Revenue:
    """What was charged for delivered images; what the calls for images may have cost, of failed ones too; and what has
    paid, where that is known: allowance, credit or bill. In millionths.
    """

    charged: int = 0
    cost: int = 0
    from_allowance: int = 0
    from_credit: int = 0
    billed: int = 0

    @property
    def margin(self) -> int:
        """What remains of what was charged."""
        return self.charged - self.cost

    def __add__(self, other: "Revenue") -> "Revenue":
        return Revenue(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


async def find_revenue(
    session: AsyncSession, *, by: RevenueBy, first: date, last: date, accounts: Sequence[str] | None = None
) -> Sequence[tuple[str, Revenue]]:
    """The sums of the UTC days from `first` to `last`, of these accounts or of all, by name. `by` day, they must be one
    day. The day of an image that failed is that on which it was asked for.
    """
    start, end = midnight(first), midnight(last + _DAY)
    of_usage, of_generations, of_charges = _GROUPS[by]
    statement = _REVENUE.format(of_usage=of_usage, of_generations=of_generations, of_charges=of_charges)
    days = {"first": first, "last": last, "midnight": start, "end": end}
    ids = {"low": time_prefix("gen", start), "high": time_prefix("gen", end)}
    rows = await session.execute(text(statement), {**days, **ids, "accounts": accounts})
    return [(name, Revenue(*amounts)) for name, *amounts in rows]
