"""Grants that expire: what is left of them is taken back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, exists, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.billing.entries import PROVIDERS, locked_balance, with_entry
from app.core.db import SessionMaker
from app.models import Balance, CreditEntry

_AT_A_TIME = 1000
_LOOKS_BACK = timedelta(days=2)
"""Longer than a generation holds its price: until then a hold that is let go may leave something of a grant."""

_Grant = aliased(CreditEntry)
_Taken = aliased(CreditEntry)
_REFERENCE = literal("expiry:").concat(_Grant.id)
"""Of the entry that takes back what is left of a grant."""


@dataclass
class GrantExpiry:
    """Takes back what is left of grants that have expired, by the database's clock: what was charged since a grant was
    made counts as paid from it, what an operator has taken since then as taken from it, and what is held stays.
    Overlapping grants lose too little so, never too much.

    Safe in any number of processes at once. What fails is done by the next sweep.
    """

    sessions: SessionMaker
    _swept_until: datetime | None = None

    async def sweep(self) -> None:
        """One turn. The first goes through all grants that have expired, later ones through those of the last days."""
        async with self.sessions.begin() as session:
            now = (await session.execute(select(func.now()))).scalar_one()
        after = None if self._swept_until is None else (self._swept_until - _LOOKS_BACK, "")
        while True:
            async with self.sessions.begin() as session:
                found = await _find_expired(session, until=now, after=after)
            for grant in found:
                if not grant.is_left:
                    continue
                async with self.sessions.begin() as session:
                    await expire(session, grant_id=grant.id, account_id=grant.account_id)
            if len(found) < _AT_A_TIME:
                break
            after = found[-1].expires_at, found[-1].id
        self._swept_until = now


async def expire(session: AsyncSession, *, grant_id: str, account_id: str) -> bool:
    """Takes back what is left of the account's grant; False where nothing is, where it has not expired, and where that
    was done before.
    """
    balance = locked_balance(account_id)
    left = _left(charged=balance.c.charged, free=balance.c.free)
    expired = with_entry(
        balance,
        _Grant.id == grant_id,
        _Grant.account_id == balance.c.account_id,
        _Grant.expires_at <= func.clock_timestamp(),
        left > 0,
        kind="expiry",
        amount=-left,
        reference=_REFERENCE,
    )
    return (await session.execute(expired)).one_or_none() is not None


async def _find_expired(session: AsyncSession, *, until: datetime, after: tuple[datetime, str] | None) -> Sequence[Any]:
    """Some grants, the first that have expired first: `is_left` where something of one seems to be. It reads no more
    than it returns, however many were used up or taken back.
    """
    is_done = exists().where(CreditEntry.reference == _REFERENCE)
    free = Balance.credit - Balance.charged - Balance.held
    is_left = _left(charged=Balance.charged, free=free) > 0
    found = (
        select(_Grant.id, _Grant.account_id, _Grant.expires_at, (is_left & ~is_done).label("is_left"))
        .join(Balance, Balance.account_id == _Grant.account_id)
        .where(_Grant.expires_at <= until)
        .order_by(_Grant.expires_at, _Grant.id)
        .limit(_AT_A_TIME)
    )
    if after is not None:
        found = found.where(tuple_(_Grant.expires_at, _Grant.id) > tuple_(*after))
    return (await session.execute(found)).all()


def _left(*, charged: SQLColumnExpression[int], free: ColumnElement[int]) -> ColumnElement[int]:
    """Of a grant."""
    taken = (
        select(func.coalesce(func.sum(-_Taken.amount), 0))
        .where(_Taken.account_id == _Grant.account_id, _Taken.created_at >= _Grant.created_at)
        .where(_Taken.kind == "adjustment", _Taken.amount < 0, ~_Taken.reference.startswith(PROVIDERS))
        .scalar_subquery()
    )
    used = charged - _Grant.charged_before + taken
    return func.least(_Grant.amount - used, free, type_=BigInteger)
