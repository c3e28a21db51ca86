"""What explains a month is of one moment."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from app.billing import months
from app.billing.months import Use
from app.billing.periods import period_of_account
from app.core.db import SessionMaker
from app.core.security import new_id

_CHARGE = """
with owner as (insert into users (id, email, password_hash) values ($3, $3, '')),
key as (insert into api_keys (id, user_id, account_id, name, environment, prefix, key_hash)
  values ($4, $3, $1, '', 'live', '', sha256($4::text::bytea))),
charge as (insert into charges (account_id, hour, amount, from_allowance, from_credit, billed)
  values ($1, $2, 5, 0, 5, 0))
insert into usage (key_id, day, pictures, amount) values ($4, $2::timestamptz::date, 1, 5)
"""


async def test_a_month_that_is_charged_while_it_is_read_adds_up(
    sessions: SessionMaker, database: asyncpg.Connection, account_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    period, find_uses = period_of_account(datetime(2026, 1, 1, tzinfo=UTC), anchor=timedelta(0)), months.find_uses

    async def charge_and_find_uses(*args: Any, **named: Any) -> Sequence[Use]:
        if await database.fetchval("select count(*) from charges where account_id = $1", account_id) == 0:
            await database.execute(_CHARGE, account_id, period.start, f"usr_{account_id[4:]}", new_id("key"))
        return await find_uses(*args, **named)

    monkeypatch.setattr(months, "find_uses", charge_and_find_uses)
    for total in (0, 5):
        async with sessions.begin() as session:
            report = await months.find_report(session, account_id=account_id, period=period)
        assert (report.total("amount"), sum(use.amount for use in report.uses)) == (total, total)
