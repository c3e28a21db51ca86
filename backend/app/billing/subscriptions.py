"""The plan of an account: what it gives, and what becomes of that when it changes or ends.

What holds still need of an earlier allowance stays until they have ended, so that nothing that was admitted within it
overspends the account: `allowance_beside_holds`. It is no more than that, so that nothing further is admitted with it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.periods import period_of_account
from app.catalogue.model import Catalogue, Model
from app.catalogue.offers import PlanOffer
from app.core.db import SessionMaker
from app.models import Account, ApiKey, Balance, Charge, Lane, Subscription, SubscriptionStatus

IN_FORCE: Collection[SubscriptionStatus] = ("active", "past_due")
"""While its subscription has one of these, an account has what its plan gives."""
ANCHOR_DAY_MAX: Final = 28
"""The last day that every month has."""

_NO_PLAN = PlanOffer(name="", title="")
_OF_ACCOUNT = {
    "limit": "generate_limit",
    "limit_per_key": "generate_limit_per_key",
    "concurrency_per_key": "generate_concurrency_per_key",
    "models": "models",
}
"""What a plan gives, and the account's columns that have it."""
_AT_A_TIME = 100

Row = TypeVar("Row", Account, Balance, Subscription)


def anchor_day_of(at: datetime) -> int:
    """On which day the periods of a plan begin that starts at this time: the same in UTC, the 28th at the latest."""
    return min(at.astimezone(UTC).day, ANCHOR_DAY_MAX)


async def apply(
    session: AsyncSession,
    *,
    account_id: str,
    plan: PlanOffer | None,
    anchor_day: int,
    status: SubscriptionStatus,
    stripe_id: str | None = None,
) -> int:
    """Gives the account a plan, whose periods begin on that day of the month, or with another status than those of
    IN_FORCE takes from it what its plan gave. Without a plan: the one that it has, as it was applied, whatever the
    catalogue says by now. It all holds from the commit on, on every machine; limits within ten seconds.

    Limits and models that the plan says nothing about stay as they are, and so does the account's cap, unless it is the
    earlier plan's, or larger than that of a plan with another one. What was delivered since the period began counts,
    whatever the plan was then.

    Returns how much of an earlier allowance is left beside the plan's, in millionths, until generations have ended
    which hold it: then `finish_pending` takes it back. Raises LookupError for an account that has no plan to go on
    with, and for one that there is not.
    """
    account = await session.scalar(_locked(Account, Account.id == account_id))
    before = await session.scalar(_locked(Subscription, Subscription.account_id == account_id))
    offer = plan or (_read(before.terms) if before else None)
    if account is None or (offer is None and status in IN_FORCE):
        raise LookupError(account_id)
    if offer is None:
        return 0
    had = given(before)
    gives = offer if status in IN_FORCE else _NO_PLAN
    await _set_limits(session, account, had=had, gives=gives)
    kept = await _set_money(session, account_id, had=had, gives=gives, anchor_day=anchor_day)
    if gives.weight != had.weight:
        await _set_weight(session, account_id, gives.weight)
    row = _row(before, offer, anchor_day=anchor_day, status=status, stripe_id=stripe_id)
    values = {**row, "is_pending": kept > 0}
    written = insert(Subscription).values(account_id=account_id, **values)
    await session.execute(written.on_conflict_do_update(index_elements=[Subscription.account_id], set_=values))
    return kept


async def change_status(session: AsyncSession, subscription: Subscription, status: SubscriptionStatus) -> None:
    """Gives the account's plan another status, as `apply` does. `subscription` is one that `find_locked` has found."""
    await apply(
        session,
        account_id=subscription.account_id,
        plan=None,
        anchor_day=subscription.anchor_day,
        status=status,
        stripe_id=subscription.stripe_id,
    )


async def find_locked(session: AsyncSession, *, account_id: str) -> Subscription | None:
    """The account's subscription, which nobody else changes until the transaction ends."""
    await session.execute(_locked(Account, Account.id == account_id))
    return await session.scalar(_locked(Subscription, Subscription.account_id == account_id))


def given(subscription: Subscription | None) -> PlanOffer:
    """What the account has of its plan now."""
    if subscription is None or subscription.status not in IN_FORCE:
        return _NO_PLAN
    return _read(subscription.terms)


async def find_models(session: AsyncSession, catalogue: Catalogue, *, account_id: str) -> Sequence[Model]:
    """The models that the account can ask for: those of its plan, or all, the default one first."""
    return catalogue.models_for(await session.scalar(select(Account.models).where(Account.id == account_id)))


async def find_plans_in_force(session: AsyncSession) -> Sequence[str]:
    """The names of the plans that accounts have, in order."""
    names = select(Subscription.plan).where(Subscription.status.in_(IN_FORCE)).distinct().order_by(Subscription.plan)
    return (await session.scalars(names)).all()


async def finish_pending(sessions: SessionMaker) -> None:
    """Takes back what was left of earlier allowances and is held no more, each in a transaction of its own."""
    pending = select(Subscription.account_id).where(Subscription.is_pending).order_by(Subscription.account_id)
    after = ""
    while True:
        async with sessions.begin() as session:
            some = pending.where(Subscription.account_id > after).limit(_AT_A_TIME)
            account_ids = (await session.scalars(some)).all()
        for account_id in account_ids:
            async with sessions.begin() as session:
                await _finish(session, account_id)
        if len(account_ids) < _AT_A_TIME:
            return
        after = account_ids[-1]


def allowance_beside_holds(allowance: int, *, spent: int, left: int, free_credit: int, held: int) -> int:
    """The allowance to set in place of an earlier one of which `left` was left: this one, or more where holds need more
    than it and the credit have. `free_credit` is neither charged nor negative. Then an account that had room for its
    holds has it still, and one that is given more than `allowance` has room for nothing besides.
    """
    needed = min(left, max(held - free_credit, 0))
    return max(allowance, spent + needed) if needed else allowance


def is_above(cap: int | None, most: int | None) -> bool:
    """Whether a cap allows more than another one. None allows everything."""
    return most is not None and (cap is None or cap > most)


async def _finish(session: AsyncSession, account_id: str) -> None:
    found = await find_locked(session, account_id=account_id)
    if found is None or not found.is_pending:
        return
    gives = given(found)
    if not await _set_money(session, account_id, had=gives, gives=gives, anchor_day=found.anchor_day):
        found.is_pending, found.started_at = False, func.now()


async def _set_limits(session: AsyncSession, account: Account, *, had: PlanOffer, gives: PlanOffer) -> None:
    """Sets what the two plans differ in, and raises the revision of the account's keys: what was admitted under the
    plan before and is not recorded yet is admitted anew.
    """
    changed = {name: column for name, column in _OF_ACCOUNT.items() if getattr(gives, name) != getattr(had, name)}
    if not changed:
        return
    for name, column in changed.items():
        setattr(account, column, getattr(gives, name))
    await session.flush()
    unrevoked = ApiKey.account_id == account.id, ApiKey.revoked_at.is_(None)
    await session.execute(select(ApiKey.id).where(*unrevoked).order_by(ApiKey.id).with_for_update(key_share=True))
    await session.execute(update(ApiKey).where(*unrevoked).values(revision=ApiKey.revision + 1))


async def _set_money(
    session: AsyncSession, account_id: str, *, had: PlanOffer, gives: PlanOffer, anchor_day: int
) -> int:
    """Returns how much more than its allowance the plan's account has for now."""
    balance = (await session.execute(_locked(Balance, Balance.account_id == account_id))).scalar_one()
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    period = period_of_account(now, anchor=balance.anchor)
    spent = period.spent(balance.spent, since=balance.period)
    left = max(balance.allowance - spent, 0)
    anchor = timedelta(days=anchor_day - 1)
    if (anchor, gives.is_postpaid) != (balance.anchor, balance.is_postpaid):
        balance.period = period_of_account(now, anchor=anchor).start
        delivered = select(func.coalesce(func.sum(Charge.amount), 0)).where(Charge.account_id == account_id)
        # Another statement than the one that waited for the balance: it sees what was charged meanwhile.
        spent = int((await session.execute(delivered.where(Charge.hour >= balance.period))).scalar_one())
        balance.spent = spent
    balance.anchor, balance.is_postpaid = anchor, gives.is_postpaid
    if had.cap != gives.cap and (balance.cap == had.cap or is_above(balance.cap, gives.cap)):
        balance.cap = gives.cap
    balance.allowance = gives.allowance
    if not gives.is_postpaid:
        free_credit = max(balance.credit - balance.charged, 0)
        balance.allowance = allowance_beside_holds(
            gives.allowance, spent=spent, left=left, free_credit=free_credit, held=balance.held
        )
    await session.flush()
    return balance.allowance - gives.allowance


async def _set_weight(session: AsyncSession, account_id: str, weight: int) -> None:
    """Of the account's lanes, which are made where it has none yet."""
    lanes = [{"account_id": account_id, "lane_class": name, "weight": weight} for name in ("batch", "now")]
    made = insert(Lane).values(lanes)
    key = [Lane.account_id, Lane.lane_class]
    await session.execute(made.on_conflict_do_update(index_elements=key, set_={"weight": weight}))


def _row(
    before: Subscription | None, offer: PlanOffer, *, anchor_day: int, status: SubscriptionStatus, stripe_id: str | None
) -> Mapping[str, Any]:
    """What is written of the plan, with since when the account has it as it is now, when it ends, and since when a
    payment is missing.
    """
    earlier = before if before and before.status != "cancelled" and before.stripe_id == stripe_id else None
    since: Any = earlier and earlier.past_due_since
    if status == "past_due":
        since = since or func.now()
    elif status == "active":
        since = None
    row = {
        "plan": offer.name,
        "status": status,
        "anchor_day": anchor_day,
        "stripe_id": stripe_id,
        "terms": asdict(offer),
        "past_due_since": since,
        "ends_at": earlier and earlier.ends_at,
    }
    is_unchanged = earlier and earlier.anchor_day == anchor_day and _read(earlier.terms) == offer
    return row if is_unchanged else {**row, "started_at": func.now()}


def _read(terms: Mapping[str, Any]) -> PlanOffer:
    """The plan that was written so, by this version or another."""
    known = {each.name for each in fields(PlanOffer)}
    return PlanOffer(**{name: value for name, value in terms.items() if name in known})


def _locked(entity: type[Row], of_account: ColumnElement[bool]) -> Select[Row]:
    """The row as it is once its lock is held."""
    return select(entity).where(of_account).with_for_update(key_share=True).execution_options(populate_existing=True)
