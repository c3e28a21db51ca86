"""The hours of charges: once one is over it is closed, and nothing is added to it any more."""

import asyncpg

OVER = "hour < date_trunc('hour', now() - interval '5 minutes', 'UTC')"
"""SQL: whether a charge's hour is over, also by a clock that was set back by up to five minutes."""

_CLOSE = """
with due as materialized (
  select distinct account_id from charges
  where billed > 0 and reported_at is null and closed_at is null and {over} limit 100
), locked as materialized (
  select account_id from balances where account_id = any(array(select account_id from due))
  order by account_id for no key update
)
update charges c set closed_at = now() from locked l
where c.account_id = l.account_id and c.billed > 0 and c.closed_at is null and {over}
"""


async def close_hours(connection: asyncpg.Connection) -> None:
    """Closes all hours that are over and are to be billed, those of 100 accounts in each commit.

    A settlement dates what it delivers while it holds the lock of the account's balance, and so does this statement:
    those that come after it belong to later hours.
    """
    close = _CLOSE.format(over=OVER)
    while await connection.execute(close) != "UPDATE 0":
        pass
