"""The comparison of money with what it was charged for: balances with entries, charges and holds, and on each UTC day
charges with usage, with the generations that were delivered, and with what Stripe has counted.

Each statement is one snapshot, so that what is recorded and settled meanwhile makes no difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import TextClause, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.prices import format_amount
from app.core.clock import midnight
from app.core.security import time_prefix
from app.models import Balance, Charge, Usage

_DAY = timedelta(days=1)

_BALANCES = """
select b.account_id, null as key_id, v.* from balances b
cross join lateral (
  select coalesce(sum(amount), 0)::bigint as amount, coalesce(sum(from_allowance), 0)::bigint as from_allowance
  from charges c where c.account_id = b.account_id and c.hour >= b.period
) as in_period
cross join lateral (values
  ('credit', b.credit, 'entries',
    (select coalesce(sum(amount), 0)::bigint from credit_entries e where e.account_id = b.account_id)),
  ('charged', b.charged, 'charges paid by credit',
    (select coalesce(sum(from_credit), 0)::bigint from charges c where c.account_id = b.account_id)),
  ('held', b.held, 'prices of what has not ended',
    (select coalesce(sum(price), 0)::bigint from generations g
      where g.account_id = b.account_id and g.lease_until is not null)),
  ('spent', b.spent, 'charges of the period', in_period.amount),
  ('used of the allowance', in_period.from_allowance, 'allowance', case
    when exists (select from subscriptions s where s.account_id = b.account_id
      and (s.status not in ('active', 'past_due') or s.started_at > b.period)) then in_period.from_allowance
    else least(in_period.from_allowance, b.allowance) end)
) as v(name, amount, other_name, other_amount)
where b.account_id = any(:accounts) and v.amount <> v.other_amount
union all
select k.account_id, k.id, v.* from api_keys k
cross join lateral (values
  ('held', k.held, 'prices of what has not ended',
    (select coalesce(sum(price), 0)::bigint from generations g
      where g.account_id = k.account_id and g.key_id = k.id and g.lease_until is not null)),
  ('spent', k.spent, 'usage of the period',
    (select coalesce(sum(amount), 0)::bigint from usage u
      where u.key_id = k.id and u.day >= (k.period at time zone 'UTC')::date))
) as v(name, amount, other_name, other_amount)
where k.account_id = any(:accounts) and k.cap is not null and v.amount <> v.other_amount
order by 1, 2 nulls first
"""

_OF_ACCOUNTS = "(cast(:accounts as text[]) is null or account_id = any(:accounts))"
_OF_DAY = f"hour >= :midnight and hour < :midnight + interval '1 day' and {_OF_ACCOUNTS}"

_CHARGES = """
with charged as (
  select account_id, sum(amount) as amount from charges where {of_day} group by account_id
), counted as (
  select account_id, sum(amount) as amount from usage join api_keys on api_keys.id = usage.key_id
  where day = :day and amount <> 0 and {of_accounts} group by account_id
), delivered as (
  select account_id, sum(price) as amount from generations
  where id >= :low and id < :high and status = 'delivered' and price > 0
    and (delivered_at at time zone 'UTC')::date = :day and {of_accounts}
  group by account_id
), sums as (
  select account_id, coalesce(c.amount, 0)::bigint as charges, coalesce(u.amount, 0)::bigint as usage,
    coalesce(d.amount, 0)::bigint as generations,
    :day >= coalesce((select generations_kept_from from deployment), '-infinity') as are_kept
  from charged c full join counted u using (account_id) full join delivered d using (account_id)
)
select * from sums where charges <> usage or are_kept and charges <> generations order by account_id
"""

_TOTALS = """
select coalesce(sum(amount), 0)::bigint as charged, coalesce(sum(from_allowance), 0)::bigint as from_allowance,
  coalesce(sum(from_credit), 0)::bigint as from_credit, coalesce(sum(billed), 0)::bigint as billed,
  coalesce(sum(billed) filter (where reported_at is not null), 0)::bigint as reported
from charges where {of_day}
"""

_BILLED = """
select account_id, hour, billed, reported_at < now() - interval '1 hour' is true as is_settled, customer_id
from charges join stripe_customers using (account_id)
where billed > 0 and {of_day} and (hour, account_id) > (:hour, :account_id)
order by hour, account_id limit 500
"""


@dataclass(frozen=True)
class Difference:
    """Amounts of an account that should be equal and are not, in millionths, by what they are: of a UTC day or of now,
    of the whole account or of one of its keys.
    """

    account_id: str
    amounts: Mapping[str, int]
    day: date | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        """Such as `2026-10-14 acc_...: charges 0.15, usage 0.1`."""
        about = " ".join(str(part) for part in (self.day, self.account_id, self.key_id) if part)
        return f"{about}: {', '.join(f'{name} {format_amount(amount)}' for name, amount in self.amounts.items())}"


class DayTotals(NamedTuple):
    """What was charged on a day, what has paid for it, and how much of what is billed Stripe has confirmed."""

    charged: int
    from_allowance: int
    from_credit: int
    billed: int
    reported: int


class BilledHour(NamedTuple):
    """What the customer of an account is to be billed for an hour, and whether Stripe has confirmed it so long ago that
    it must have counted it.
    """

    account_id: str
    hour: datetime
    billed: int
    is_settled: bool
    customer_id: str


async def find_days(session: AsyncSession) -> Sequence[date]:
    """Every UTC day from the first to the last on which an account was charged or usage has an amount."""
    charged = (await session.execute(select(func.min(Charge.hour), func.max(Charge.hour)))).one()
    counted = (await session.execute(select(func.min(Usage.day), func.max(Usage.day)).where(Usage.amount != 0))).one()
    days = [each.astimezone(UTC).date() for each in charged if each] + [each for each in counted if each]
    return [min(days) + _DAY * n for n in range((max(days) - min(days)).days + 1)] if days else []


async def find_accounts(session: AsyncSession, *, after: str, limit: int) -> Sequence[str]:
    """The ids of the next accounts, in order; none at the end."""
    ids = select(Balance.account_id).where(Balance.account_id > after).order_by(Balance.account_id)
    return (await session.scalars(ids.limit(limit))).all()


async def compare_balances(session: AsyncSession, *, accounts: Sequence[str]) -> Sequence[Difference]:
    """Where the balances of these accounts, and the counters of their keys with a cap, are not what they sum up. The
    allowance is compared with what was used of it unless the account's plan has changed within the period.
    """
    rows = await session.execute(text(_BALANCES), {"accounts": accounts})
    return [
        Difference(account_id, {name: amount, other_name: other_amount}, key_id=key_id)
        for account_id, key_id, name, amount, other_name, other_amount in rows
    ]


async def compare_day(session: AsyncSession, *, day: date, accounts: Sequence[str] | None) -> Sequence[Difference]:
    """The accounts, of these or of all, whose charges on a UTC day differ from their usage or from the prices of what
    was delivered. Generations are compared where all of that day are kept.
    """
    found = {**_parameters(day, accounts), "day": day}
    near = {
        "low": time_prefix("gen", found["midnight"] - _DAY),
        "high": time_prefix("gen", found["midnight"] + 2 * _DAY),
    }
    rows = (await session.execute(_sql(_CHARGES), found | near)).all()
    if rows:
        # Jobs may be delivered days after they were made, and an id may begin with the time of a clock that was wrong.
        found["accounts"] = [row.account_id for row in rows]
        rows = (await session.execute(_sql(_CHARGES), found | {"low": "", "high": "~"})).all()
    return [
        Difference(
            row.account_id,
            {"charges": row.charges, "usage": row.usage} | ({"generations": row.generations} if row.are_kept else {}),
            day=day,
        )
        for row in rows
    ]


async def sum_day(session: AsyncSession, *, day: date, accounts: Sequence[str] | None) -> DayTotals:
    """What these accounts, or all, were charged on a UTC day."""
    return DayTotals(*(await session.execute(_sql(_TOTALS), _parameters(day, accounts))).one())


async def find_billed(
    session: AsyncSession, *, day: date, accounts: Sequence[str] | None, after: BilledHour | None
) -> Sequence[BilledHour]:
    """The next hours of a UTC day to be billed to customers of Stripe's, in order; none at the end."""
    start = {"hour": after.hour, "account_id": after.account_id} if after else {"hour": midnight(day), "account_id": ""}
    return [BilledHour(*row) for row in await session.execute(_sql(_BILLED), _parameters(day, accounts) | start)]


def compare_hour(hour: BilledHour, counted: int) -> Difference | None:
    """The difference where Stripe's meter has counted another amount than the customer is to be billed. Of an hour that
    is not settled it may have counted nothing yet.
    """
    if counted == hour.billed or (counted == 0 and not hour.is_settled):
        return None
    name = f"billed at {hour.hour.astimezone(UTC):%H}:00"
    return Difference(hour.account_id, {name: hour.billed, "Stripe": counted}, day=hour.hour.astimezone(UTC).date())


def _sql(statement: str) -> TextClause:
    return text(statement.format(of_day=_OF_DAY, of_accounts=_OF_ACCOUNTS))


def _parameters(day: date, accounts: Sequence[str] | None) -> dict[str, Any]:
    return {"midnight": midnight(day), "accounts": accounts}
