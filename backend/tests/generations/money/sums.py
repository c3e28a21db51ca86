"""What must be equal at every moment, whatever has happened: what is held and charged, and the rows that it is for."""

from collections.abc import Sequence

import asyncpg

_WRONG = """
with held as (
  select account_id, key_id, sum(price) as amount from generations where lease_until is not null group by 1, 2
), delivered as (
  select account_id, key_id, (delivered_at at time zone 'UTC')::date as day, sum(price) as amount
  from generations where status = 'delivered' group by 1, 2, 3
), charged as (
  select account_id, (hour at time zone 'UTC')::date as day, sum(amount) as amount, sum(from_credit) as from_credit
  from charges group by 1, 2
), sums as (
  select 'held' as name, b.account_id as id, b.held as found,
    (select coalesce(sum(amount), 0) from held h where h.account_id = b.account_id) as expected
  from balances b
  union all
  select 'held of key', k.id, k.held,
    case when k.cap is null then 0 else (select coalesce(sum(amount), 0) from held h where h.key_id = k.id) end
  from api_keys k
  union all
  select 'charged', b.account_id, b.charged,
    (select coalesce(sum(from_credit), 0) from charged c where c.account_id = b.account_id)
  from balances b
  union all
  select 'charges of a day', coalesce(c.account_id, d.account_id), coalesce(c.amount, 0), coalesce(d.amount, 0)
  from charged c full join (select account_id, day, sum(amount) as amount from delivered group by 1, 2) d
    on d.account_id = c.account_id and d.day = c.day
  union all
  select 'usage of a day', coalesce(u.key_id, d.key_id), coalesce(u.amount, 0), coalesce(d.amount, 0)
  from (select key_id, day, sum(amount) as amount from usage group by 1, 2) u
  full join delivered d on d.key_id = u.key_id and d.day = u.day
  union all
  select 'overspent', account_id, least(credit - charged - held + greatest(allowance - spent, 0), 0), 0
  from balances where not is_postpaid
)
select name, id, found, expected from sums where found <> expected
"""


async def wrong_sums(database: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """The sums that are not those of the rows; there are none."""
    return list(await database.fetch(_WRONG))
