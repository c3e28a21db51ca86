"""Accounts that are billed afterwards, and their hours, written as they are after the ledger has charged them."""

import secrets
from dataclasses import dataclass
from datetime import datetime

import asyncpg

_OPEN = "insert into accounts (id) values ($1)"
_POSTPAID = "update balances set is_postpaid = true where account_id = $1"
_CUSTOMER = "insert into stripe_customers (account_id, customer_id) values ($1, $2)"
_CHARGE = """
insert into charges (account_id, hour, amount, from_allowance, from_credit, billed)
values ($1, date_trunc('hour', now(), 'UTC') - $2 * interval '1 hour', $3, 0, 0, $3) returning hour
"""


@dataclass(frozen=True)
class Postpaid:
    """An account that is billed, and its customer at Stripe."""

    id: str
    customer_id: str

    @classmethod
    async def open(cls, database: asyncpg.Connection, *, has_customer: bool = True) -> "Postpaid":
        suffix = secrets.token_hex(10)
        account = cls(f"acc_{suffix}", f"cus_{suffix}")
        await database.execute(_OPEN, account.id)
        await database.execute(_POSTPAID, account.id)
        if has_customer:
            await database.execute(_CUSTOMER, account.id, account.customer_id)
        return account

    async def charge(self, database: asyncpg.Connection, billed: int, *, hours_ago: int = 2) -> datetime:
        """The hour in which it was charged so much."""
        hour: datetime = await database.fetchval(_CHARGE, self.id, hours_ago, billed)
        return hour
