"""Accounts that pay, and what the ledger does with their requests, below it."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
from app.core.security import new_id, new_timed_id
from app.generations.ledger import statements
from app.generations.ledger.batches import recorded_values, settled_values
from app.generations.ledger.queue import IdempotencyClaim, ImageEnd, Lease, PendingRecord, PendingSettlement
from tests.features.usage.recorded import new_record
from tests.generations.races import rows
from tests.generations.races.rows import Call
from tests.harness import Key

_SET_BALANCE = """
update balances b set (is_postpaid, credit, charged, allowance, cap, anchor, period, spent) = (
  select r.is_postpaid, r.credit, r.charged, r.allowance, r.cap, r.anchor, r.period, r.spent
  from jsonb_populate_record(b, $2::jsonb) r
)
where account_id = $1
"""
_SET_KEYS = """
update api_keys k set (cap, cap_period, period, spent) = (
  select r.cap, r.cap_period, r.period, r.spent from jsonb_populate_record(k, $2::jsonb) r
)
where account_id = $1
"""
_CHARGES = """
select coalesce(sum(from_allowance), 0)::bigint, coalesce(sum(from_credit), 0)::bigint, coalesce(sum(billed), 0)::bigint
from charges where account_id = $1
"""
FAILED = ImageEnd("provider_failed", cost=1)


class Payer(NamedTuple):
    """An account that pays in advance, unless it is said that it does not, and its keys."""

    account_id: str
    keys: Sequence[Key]

    @property
    def key(self) -> Key:
        return self.keys[0]


async def new_payer(
    database: asyncpg.Connection, *, keys: int = 1, of_keys: Mapping[str, Any] | None = None, **balance: Any
) -> Payer:
    """An account with this balance and so many keys: columns of `balances` and `api_keys`."""
    account_id = new_id("acc")
    payer = Payer(account_id, [await rows.new_key(database, account_id=account_id) for _ in range(keys)])
    await set_money(database, payer, {"cap": None, **(of_keys or {})}, **balance)
    return payer


async def set_money(
    database: asyncpg.Connection, payer: Payer, of_keys: Mapping[str, Any], *, is_postpaid: bool = False, **balance: Any
) -> None:
    """Sets these columns of the account's balance and of its keys."""
    balance["is_postpaid"] = is_postpaid
    for statement, columns in {_SET_BALANCE: balance, _SET_KEYS: of_keys}.items():
        await database.execute(statement, payer.account_id, json.dumps(columns, default=str))


def priced(key: Key, price: int, *, images: int = 1, scope: bytes | None = None, seconds: float = 60) -> PendingRecord:
    """A request that its caller waits for."""
    record = new_record(key)
    first = new_timed_id("gen", now=time.time())
    record.ids = [f"{first[:-2]}{place:02d}" for place in range(images)]
    record.provider, record.price, record.list_price = "gemini", price, price
    record.lease = Lease(uuid4(), seconds)
    record.claim = None if scope is None else IdempotencyClaim(scope, [bytes(32)])
    return record


def record(*records: PendingRecord) -> Call:
    """As the ledger records them."""
    values = recorded_values(statements.RECORD_PRICED, records, waiting_max=0)
    return Call(statements.RECORD_PRICED, values)


def settle(*records: PendingRecord, ends: Mapping[str, ImageEnd] | None = None) -> Call:
    """As the ledger settles them."""
    settlements = [PendingSettlement(each, ends or {}) for each in records]
    return Call(statements.SETTLE_PRICED, settled_values(settlements))


async def balance_of(database: asyncpg.Connection, payer: Payer) -> asyncpg.Record:
    """The account's row."""
    row = await database.fetchrow("select * from balances where account_id = $1", payer.account_id)
    assert row is not None
    return row


async def charges_of(database: asyncpg.Connection, payer: Payer) -> tuple[int, ...]:
    """What the account was charged: from the allowance, from the credit, and billed."""
    row = await database.fetchrow(_CHARGES, payer.account_id)
    assert row is not None
    return tuple(row)
