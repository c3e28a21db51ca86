"""Erases the prompts and images of deleted accounts; their rows stay, as numbers."""

from collections.abc import Sequence
from datetime import timedelta
from typing import get_args

from sqlalchemy import case, delete, func, or_, select, update

from app.core.security import KeyEnvironment
from app.generations.collaborators import Generations
from app.generations.thumbnails import delete_with_thumbnails
from app.models import Erasure, Generation

LEASE = timedelta(minutes=1)
"""How long a process that is at an erasure has it for itself; each batch renews it."""

_AT_A_TIME = 100
_LEFT = or_(Generation.prompt != "", Generation.inputs.is_not(None), Generation.deleted_at.is_(None))


async def take_up(generations: Generations) -> str | None:
    """The id of a deleted account whose erasure nobody is at; from then on the caller is."""
    free = select(Erasure.account_id).where(Erasure.lease_until < func.now()).limit(1).with_for_update(skip_locked=True)
    taken = update(Erasure).where(Erasure.account_id == free.scalar_subquery()).values(lease_until=func.now() + LEASE)
    async with generations.sessions.begin() as session:
        return await session.scalar(taken.returning(Erasure.account_id))


async def erase(generations: Generations, *, account_id: str) -> int:
    """Erases the prompts and inputs of all generations of the deleted account, and the images of those that have ended.
    Returns how many have not: what these leave is to be erased later. Where there are none, the erasure is done.

    May be stopped anywhere and called again, by several processes at once. Waits for no lock that a statement of the
    ledger holds. Raises StoreUnavailable.
    """
    for environment in get_args(KeyEnvironment):
        after = ""
        while ids := await _erase_batch(generations, account_id, environment, after):
            after = ids[-1]
    async with generations.sessions.begin() as session:
        left = select(func.count()).where(Generation.account_id == account_id, _LEFT)
        count = await session.scalar(left) or 0
        if not count:
            await session.execute(delete(Erasure).where(Erasure.account_id == account_id))
    return count


async def _erase_batch(
    generations: Generations, account_id: str, environment: KeyEnvironment, after: str
) -> Sequence[str]:
    """The ids of the next generations, which it has erased but for those that another transaction holds."""
    of_account = Generation.account_id == account_id, Generation.environment == environment
    statement = select(Generation).where(*of_account, Generation.id > after, _LEFT).order_by(Generation.id)
    async with generations.sessions.begin() as session:
        found = (await session.scalars(statement.limit(_AT_A_TIME))).all()
    ended = [each for each in found if each.status not in {"queued", "processing"}]
    # First the bytes: whatever happens between the two, an image that is said to be deleted is.
    for each in ended:
        if each.provider != "stub" and each.deleted_at is None:
            await delete_with_thumbnails(generations, each.id, each.format)
    ids = [each.id for each in found]
    # One that was under way when it was read may have an image by now: it is left for the next time.
    has_ended = Generation.id.in_([each.id for each in ended])
    deleted_at = case((has_ended, func.coalesce(Generation.deleted_at, func.now())), else_=Generation.deleted_at)
    unlocked = select(Generation.id).where(Generation.id.in_(ids)).order_by(Generation.id)
    free = unlocked.with_for_update(skip_locked=True, key_share=True)
    erased = update(Generation).where(Generation.id.in_(free)).values(prompt="", inputs=None, deleted_at=deleted_at)
    async with generations.sessions.begin() as session:
        await session.execute(erased)
        renewed = update(Erasure).where(Erasure.account_id == account_id)
        await session.execute(renewed.values(lease_until=func.now() + LEASE))
    return ids
