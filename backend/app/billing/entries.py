"""Credit entries: each changes an account's credit once, however often it is posted."""

import time
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import CTE, BigInteger, ColumnElement, Text, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_skip
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningUpdate

from app.core.logs import logger
from app.core.metrics.billing import BillingMetrics
from app.core.security import new_timed_id
from app.models import Balance, CreditEntry, EntryKind
from app.models.base import TIME

PROVIDERS = "stripe:"
"""What references begin with of entries for what has happened at the payment provider."""


class EntryMismatch(Exception):
    """The reference belongs to an entry of another account or amount."""


class TooLittleCredit(Exception):
    """The entry would take credit that is charged or held already. `free` is how much it could take."""

    def __init__(self, free: int) -> None:
        super().__init__("The account has too little credit that is neither charged nor held")
        self.free = free


@dataclass(frozen=True)
class Posted:
    """An entry, and its account's credit after it. Where it had been made before it is not new, and the credit is as it
    is now.
    """

    entry_id: str
    credit: int
    is_new: bool


async def post(
    session: AsyncSession,
    *,
    account_id: str,
    kind: EntryKind,
    amount: int,
    reference: str,
    expires_at: datetime | None = None,
    metrics: BillingMetrics | None = None,
) -> Posted:
    """An entry of `amount` millionths, which is not 0. Of any number at once with one reference only the first is made,
    once this transaction commits; the others return it. What the payment provider has done (`stripe:...`) is entered as
    it is, and may leave the account below zero.

    Raises EntryMismatch where the first has another account or amount, counted and logged where `metrics` are given, as
    outside of commands; and TooLittleCredit for any other negative amount that is more than what is neither charged nor
    held.
    """
    balance = locked_balance(account_id)
    is_bounded = amount < 0 and not reference.startswith(PROVIDERS)
    changed = with_entry(
        balance,
        *([balance.c.free + amount >= 0] if is_bounded else []),
        kind=kind,
        amount=literal(amount, BigInteger),
        reference=literal(reference, Text),
        expires_at=expires_at,
    )
    row = (await session.execute(changed)).one_or_none()
    if row is not None:
        return Posted(row.id, row.credit, is_new=True)
    return await _find_first(session, account_id=account_id, amount=amount, reference=reference, metrics=metrics)


def locked_balance(account_id: str) -> CTE:
    """The account's balance as it is once its lock is held: `charged`, and `free`, the credit that is neither charged
    nor held.
    """
    free = (Balance.credit - Balance.charged - Balance.held).label("free")
    found = select(Balance.account_id, Balance.charged, free).where(Balance.account_id == account_id)
    return found.with_for_update(key_share=True).cte("balance")


def with_entry(
    balance: CTE,
    *conditions: ColumnElement[bool],
    kind: EntryKind,
    amount: ColumnElement[int],
    reference: ColumnElement[str],
    expires_at: datetime | None = None,
) -> ReturningUpdate[tuple[str, int]]:
    """The statement that makes an entry of a locked balance, if the conditions hold and nothing has its reference: the
    id of the entry and the credit after it, or no row.
    """
    columns = {
        CreditEntry.id: literal(new_timed_id("ent", now=time.time()), Text),
        CreditEntry.account_id: balance.c.account_id,
        CreditEntry.kind: literal(kind, Text),
        CreditEntry.amount: amount,
        CreditEntry.reference: reference,
        CreditEntry.expires_at: literal(expires_at, TIME),
        CreditEntry.charged_before: balance.c.charged,
        CreditEntry.created_at: func.clock_timestamp(),
    }
    made = insert_or_skip(CreditEntry).from_select(list(columns), select(*columns.values()).where(*conditions))
    unless_there = made.on_conflict_do_nothing(index_elements=[CreditEntry.reference])
    entry = unless_there.returning(CreditEntry.id, CreditEntry.account_id, CreditEntry.amount).cte("entry")
    changed = update(Balance).where(Balance.account_id == entry.c.account_id)
    added = changed.values(credit=Balance.credit + entry.c.amount)
    return added.returning(entry.c.id, Balance.credit).execution_options(synchronize_session=False)


async def _find_first(
    session: AsyncSession, *, account_id: str, amount: int, reference: str, metrics: BillingMetrics | None
) -> Posted:
    # Another statement: it sees what was committed while the first one waited.
    statement = select(CreditEntry.id, CreditEntry.account_id, CreditEntry.amount, Balance.credit)
    of_reference = statement.join(Balance, Balance.account_id == CreditEntry.account_id)
    first = (await session.execute(of_reference.where(CreditEntry.reference == reference))).one_or_none()
    if first is None:
        balance = locked_balance(account_id)
        raise TooLittleCredit((await session.execute(select(balance.c.free))).scalar_one())
    if (first.account_id, first.amount) != (account_id, amount):
        if metrics is not None:
            metrics.entry_mismatches.add()
            logger.error("entry_mismatch", reference=reference, entry=first.id, account=account_id)
        raise EntryMismatch(f"The reference {reference} belongs to an entry of another account or amount")
    return Posted(first.id, first.credit, is_new=False)
