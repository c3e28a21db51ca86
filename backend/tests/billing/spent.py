"""An account that has paid for images in October 2026, as the ledger leaves it: all of it agrees."""

from datetime import UTC, datetime

import asyncpg
from app.core.security import time_prefix

SUFFIX = "28fm63cjp43w44255s68"
ACCOUNT, KEY = f"acc_{SUFFIX}", f"key_{SUFFIX}"

_FIRST, _SECOND = (datetime(2026, 10, day, 12, 30, tzinfo=UTC) for day in (14, 15))
_ROWS = (
    "insert into accounts (id) values ('{account}')",
    """
    insert into api_keys (id, account_id, name, environment, prefix, key_hash, cap, cap_period, period, spent, held)
    select '{key}', '{account}', 'a', 'live', 'nb_live_1', sha256('key'), 900000, 'month', '2026-10-01Z', 250000, 50000
    """,
    """
    insert into credit_entries (id, account_id, kind, amount, reference, charged_before) values
      ('ent_1', '{account}', 'top_up', 10000000, 'stripe:pi_1', 0),
      ('ent_2', '{account}', 'refund', -1000000, 'stripe:re_1', 0)
    """,
    """
    insert into charges (account_id, hour, amount, from_allowance, from_credit, billed) values
      ('{account}', '2026-10-14 12:00Z', 150000, 100000, 50000, 0),
      ('{account}', '2026-10-15 12:00Z', 100000, 0, 100000, 0)
    """,
    """
    update balances set credit = 9000000, charged = 150000, held = 50000, allowance = 100000, period = '2026-10-01Z',
      spent = 250000 where account_id = '{account}'
    """,
    """
    insert into usage (key_id, day, model, pictures, list_amount, amount, cost) values
      ('{key}', '2026-10-14', 'nano-banana', 3, 150000, 150000, 90000),
      ('{key}', '2026-10-15', 'nano-banana', 2, 100000, 100000, 60000)
    """,
)
_GENERATION = """
insert into generations (id, request_id, account_id, environment, key_id, model, provider, prompt, size, status, error,
  created_at, delivered_at, lease_until, list_price, price, cost)
select $1::text, $1, $2, 'live', $3, 'nano-banana', 'openai', 'A cute banana', '64x64', $4::text,
  case when $4 = 'failed' then 'provider_failed' end, $5::timestamptz, case when $4 = 'delivered' then $5 end,
  case when $4 = 'processing' then now() + interval '1 hour' end, 50000, 50000, $6
"""


async def fill(database: asyncpg.Connection) -> None:
    """Writes it: three images of one day, two of the next, one that failed then, and one that is being drawn."""
    for statement in _ROWS:
        await database.execute(statement.format(account=ACCOUNT, key=KEY))
    for number, (status, at, cost) in enumerate(
        [
            *[("delivered", _FIRST, 30_000)] * 3,
            *[("delivered", _SECOND, 30_000)] * 2,
            ("failed", _SECOND, 20_000),
            ("processing", _SECOND, None),
        ]
    ):
        generation_id = f"{time_prefix('gen', at)}{number}{SUFFIX}"
        await database.execute(_GENERATION, generation_id, ACCOUNT, KEY, status, at, cost)
