"""What an account's notices about money are decided by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.balance import BalanceState
from app.billing.caps import cap_of
from app.billing.subscriptions import find_models
from app.catalogue.model import Catalogue, Model
from app.models import ApiKey, Charge, Subscription, SubscriptionStatus
from app.models.base import total

_RECENT = timedelta(days=7)
_KEYS_MAX = 100


@dataclass(frozen=True)
class CapUse:
    """A cap of the account, or of the key with this name, and what it leaves, in millionths."""

    key_name: str | None
    amount: int
    left: int
    ends_at: datetime | None
    """When its period ends; None for a key's whole life."""


@dataclass(frozen=True)
class MoneySituation:
    """How an account stands, in millionths."""

    available: int | None
    """None for an account that pays afterwards."""
    spent_a_day: int
    """What it was charged a day, on the average of the last seven."""
    image: int
    """The price of the cheapest image that is not free, of the models of its plan; 0 where all are."""
    caps: Sequence[CapUse] = ()
    subscription: SubscriptionStatus | None = None
    """None where it never had a plan."""


async def find_situation(
    session: AsyncSession, *, account_id: str, balance: BalanceState, catalogue: Catalogue
) -> MoneySituation:
    """How the account with this balance stands."""
    recent = select(func.coalesce(total(Charge.amount), 0), func.clock_timestamp()).where(
        Charge.account_id == account_id, Charge.hour > func.clock_timestamp() - _RECENT
    )
    charged, now = (await session.execute(recent)).one()
    status = select(Subscription.status).where(Subscription.account_id == account_id)
    return MoneySituation(
        available=balance.available,
        spent_a_day=charged // _RECENT.days,
        image=cheapest_image(await find_models(session, catalogue, account_id=account_id)),
        caps=[*_account_cap(balance), *await _key_caps(session, account_id, now)],
        subscription=await session.scalar(status),
    )


def cheapest_image(models: Iterable[Model]) -> int:
    """The lowest price of the models that is not 0; 0 where there is none."""
    return min((amount for model in models for amount in model.prices.amounts.values() if amount), default=0)


def _account_cap(balance: BalanceState) -> Sequence[CapUse]:
    if balance.cap is None:
        return ()
    left = balance.cap - balance.spent - balance.held
    return [CapUse(None, balance.cap, left=left, ends_at=balance.period_end)]


async def _key_caps(session: AsyncSession, account_id: str, now: datetime) -> Sequence[CapUse]:
    capped = ApiKey.account_id == account_id, ApiKey.cap.is_not(None), ApiKey.revoked_at.is_(None)
    keys = await session.scalars(select(ApiKey).where(*capped).order_by(ApiKey.id).limit(_KEYS_MAX))
    found = [(key.name, cap_of(key, now=now)) for key in keys]
    return [
        CapUse(name, cap.amount, left=cap.amount - cap.spent - cap.held, ends_at=cap.ends_at)
        for name, cap in found
        if cap
    ]
