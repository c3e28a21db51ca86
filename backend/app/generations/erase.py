"""Erases the prompts, images and uploads of deleted accounts; the rows of generations stay, as numbers."""

from datetime import timedelta
from typing import get_args

from sqlalchemy import and_, case, delete, func, or_, select, update

from app.core.security import KeyEnvironment
from app.generations import uploads
from app.generations.collaborators import Generations
from app.generations.deletion_failures import DeletionFailures
from app.generations.kept import OWNED
from app.generations.partitions import UNPRUNED
from app.generations.thumbnails import delete_with_thumbnails
from app.models import Erasure, Generation

LEASE = timedelta(minutes=1)
"""How long a process that is at an erasure has it for itself; each batch renews it."""

_AT_A_TIME = 100
_HAS_IMAGE = and_(*OWNED).label("has_image")
_IS_LEFT = or_(Generation.prompt != "", Generation.inputs.is_not(None), Generation.deleted_at.is_(None)).label(
    "is_left"
)


async def take_up(generations: Generations) -> str | None:
    """The id of a deleted account whose erasure nobody is at; from then on the caller is."""
    free = select(Erasure.account_id).where(Erasure.lease_until < func.now()).limit(1).with_for_update(skip_locked=True)
    taken = update(Erasure).where(Erasure.account_id == free.scalar_subquery()).values(lease_until=func.now() + LEASE)
    async with generations.sessions.begin() as session:
        return await session.scalar(taken.returning(Erasure.account_id))


async def erase(generations: Generations, *, account_id: str) -> int:
    """Erases the prompts and inputs of all generations of the deleted account, the images of those that have ended, and
    the uploads. Returns how many are left, since they have not ended, are being stored or are held by another
    transaction: they are to be erased later. Where none is, the erasure is done.

    May be stopped anywhere and called again, by several processes at once. Its statements are short, and wait for no
    lock of the ledger's. Raises StoreUnavailable for images that could not be deleted, once all others are.
    """
    left, failures = await uploads.erase(generations, account_id=account_id), DeletionFailures()
    for environment in get_args(KeyEnvironment):
        after: str | None = ""
        while after is not None and not failures.are_many:
            after, left_of_batch = await _erase_batch(generations, account_id, environment, after, failures)
            left += left_of_batch
    failures.raise_first()
    if not left:
        async with generations.sessions.begin() as session:
            await session.execute(delete(Erasure).where(Erasure.account_id == account_id))
    return left


async def _erase_batch(
    generations: Generations, account_id: str, environment: KeyEnvironment, after: str, failures: DeletionFailures
) -> tuple[str | None, int]:
    """The id of the last of the next generations, None at the end, and how many of them are left."""
    of_account = Generation.account_id == account_id, Generation.environment == environment
    columns = Generation.id, Generation.format, Generation.attempts, Generation.status, _HAS_IMAGE, _IS_LEFT
    statement = select(*columns).where(*of_account, Generation.id > after).order_by(Generation.id).limit(_AT_A_TIME)
    async with generations.sessions.begin() as session:
        found = (await session.execute(statement)).all()
    if not found:
        return None, 0
    left = [each for each in found if each.is_left]
    ended = [each for each in left if each.status not in {"queued", "processing"}]
    # First the bytes: whatever happens between the two, an image that is said to be deleted is.
    gone = {each.id for each in ended if not each.has_image}
    for each in ended:
        if each.has_image and not failures.are_many:
            deleting = delete_with_thumbnails(generations, each.id, each.format, each.attempts)
            if await failures.deletes(each.id, deleting):
                gone.add(each.id)
    kept = {each.id for each in ended} - gone
    erased = await _erase_rows(generations, account_id, {each.id for each in left} - kept, gone)
    return found[-1].id, len(left) - erased


async def _erase_rows(generations: Generations, account_id: str, left: set[str], ended: set[str]) -> int:
    """How many of those that have ended it has erased; of all others it erases the prompt alone. One that was under way
    when it was read may have an image by now: it is left for the next time.
    """
    deleted_at = case((Generation.id.in_(ended), func.coalesce(Generation.deleted_at, func.now())))
    unlocked = select(Generation.id).where(Generation.id.in_(left)).order_by(Generation.id)
    free = unlocked.with_for_update(skip_locked=True, key_share=True)
    erased = update(Generation).where(Generation.id.in_(free)).values(prompt="", inputs=None, deleted_at=deleted_at)
    async with generations.sessions.begin() as session:
        await session.execute(UNPRUNED)
        ids = (await session.scalars(erased.returning(Generation.id))).all() if left else ()
        renewed = update(Erasure).where(Erasure.account_id == account_id)
        await session.execute(renewed.values(lease_until=func.now() + LEASE))
    return len(ended & set(ids))
