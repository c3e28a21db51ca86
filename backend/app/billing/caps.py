"""Caps: the most that an account, or one of its keys, may spend in a period.

A cap may be smaller than what is spent or held already: then nothing more is admitted until the period ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.periods import period_of_cap
from app.billing.subscriptions import find_locked, given, is_above
from app.catalogue.prices import format_amount
from app.core.errors import Invalid
from app.models import ApiKey, Balance

KeyCapPeriod = Literal["day", "month", "total"]
"""A calendar day or month in UTC, or the key's whole life."""


@dataclass(frozen=True)
class KeyCap:
    """The cap of a key and what counts against it, in millionths of the currency."""

    amount: int
    period: KeyCapPeriod
    spent: int
    """The prices of what was delivered with it in this period."""
    held: int
    """The prices of its generations that are queued or processing."""
    ends_at: datetime | None
    """When the period ends; None for the key's whole life."""


def cap_of(key: ApiKey, *, now: datetime) -> KeyCap | None:
    """The cap of a key, as its row says; None where it has none."""
    if key.cap is None:
        return None
    if key.cap_period is None:
        return KeyCap(key.cap, "total", spent=key.spent, held=key.held, ends_at=None)
    period = period_of_cap(now, period=key.cap_period)
    spent = period.spent(key.spent, since=key.period)
    return KeyCap(key.cap, key.cap_period, spent=spent, held=key.held, ends_at=period.end)


async def find_key_caps(session: AsyncSession, *, account_id: str) -> Mapping[str, KeyCap]:
    """The caps of the account's unrevoked keys that have one, by the keys' ids."""
    capped = ApiKey.account_id == account_id, ApiKey.cap.is_not(None), ApiKey.revoked_at.is_(None)
    found = await session.execute(select(ApiKey, func.clock_timestamp()).where(*capped).order_by(ApiKey.id))
    return {key.id: cap for key, now in found if (cap := cap_of(key, now=now))}


async def set_account_cap(session: AsyncSession, *, account_id: str, amount: int | None) -> None:
    """Sets the most that the account may spend in each of its periods; None for no cap. An operator may: it can be more
    than the cap of the account's plan.
    """
    await session.execute(update(Balance).where(Balance.account_id == account_id).values(cap=amount))


async def set_own_cap(session: AsyncSession, *, account_id: str, amount: int | None) -> None:
    """The same by the account itself: at most the cap of its plan, which is what holds without one of its own.

    Raises Invalid for more. The account is locked against a change of the plan at the same time.
    """
    most = given(await find_locked(session, account_id=account_id)).cap
    if amount is not None and is_above(amount, most):
        detail = f"Must be at most {format_amount(most or 0)}, the cap of the account's plan"
        raise Invalid([{"pointer": "#/amount", "detail": detail}])
    await set_account_cap(session, account_id=account_id, amount=most if amount is None else amount)


_LOCK_KEY = select(ApiKey.id).with_for_update(key_share=True)

_COUNT_ANEW = text("""
update api_keys k
set cap = cast(:amount as bigint), cap_period = nullif(:period, 'total'), period = p.start,
  held = case when cast(:amount as bigint) is null then 0 else coalesce(
    (select sum(g.price) from generations g where g.key_id = k.id and g.lease_until is not null), 0) end,
  spent = coalesce((select sum(u.amount) from usage u
    where u.key_id = k.id and u.day >= (p.start at time zone 'UTC')::date), 0)
from (
  select case cast(:period as text)
    when 'day' then date_trunc('day', clock_timestamp(), 'UTC')
    when 'month' then date_trunc('month', clock_timestamp(), 'UTC')
    else '-infinity' end as start
) p
where k.id = :key_id
""")


async def set_key_cap(
    session: AsyncSession, *, account_id: str, key_id: str, amount: int | None, period: KeyCapPeriod
) -> bool:
    """Sets the most that may be spent with a key in each period, None for no cap, and counts what is held and was spent
    with it in this one. False where the account has no such unrevoked key.

    The key is locked by a statement of its own: one that waited for the lock would count what was there before.
    """
    own = ApiKey.id == key_id, ApiKey.account_id == account_id, ApiKey.revoked_at.is_(None)
    if await session.scalar(_LOCK_KEY.where(*own)) is None:
        return False
    await session.execute(_COUNT_ANEW, {"key_id": key_id, "amount": amount, "period": period})
    return True
