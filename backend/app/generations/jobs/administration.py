"""Jobs as an operator changes them, by commands alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.generations.jobs.cancel import cancel_queued
from app.generations.jobs.overview import JobImage, find_images
from app.generations.jobs.work import CLASSES
from app.generations.ledger.in_session import execute
from app.generations.ledger.statements import QUERIES
from app.models import ApiKey, Lane, LaneKey

_UNAFFORDABLE = {
    "insufficient_credit": "its account has too little credit for it",
    "account_cap": "the cap of its account leaves too little for it",
    "key_cap": "the cap of its key leaves too little for it",
}
_UNFINISHED = frozenset({"queued", "processing"})


class Change(NamedTuple):
    """What becomes of a job that is to be changed: how many images are, or why none is, and what it may cost."""

    images: int = 0
    refusal: str | None = None
    warning: str | None = None


async def cancel(session: AsyncSession, *, job_id: str, is_confirmed: bool) -> Change:
    """Cancels the job with this id, or of which an image has this id, where no provider was asked for it yet. Unless
    that is confirmed, it only says what would become of it.
    """
    images = await find_images(session, job_id=job_id)
    refusal = _refusal_to_cancel(images)
    if refusal or not is_confirmed:
        return Change(len(images), refusal)
    ended = await execute(session, QUERIES["cancel_job"], request_id=images[0].request_id, error="cancelled")
    return Change(len(ended), None if ended else "it has changed meanwhile")


def _refusal_to_cancel(images: Sequence[JobImage]) -> str | None:
    if not images:
        return "there is no such job"
    if not any(each.status in _UNFINISHED for each in images):
        return f"it has ended: {images[0].status}"
    return "a provider was asked for it, and may have to be paid" if any(each.sent_at for each in images) else None


async def count_waiting(session: AsyncSession, *, which: ColumnElement[bool]) -> int:
    """How many images wait under the keys that are meant."""
    waiting = select(func.sum(LaneKey.waiting)).join(ApiKey, ApiKey.id == LaneKey.key_id).where(which)
    return await session.scalar(waiting) or 0


async def cancel_waiting(session: AsyncSession, *, which: ColumnElement[bool]) -> int:
    """Cancels all that waits under the keys that are meant; how many images that was. What is being drawn goes on."""
    keys = select(ApiKey.id).where(which).order_by(ApiKey.id).with_for_update(key_share=True)
    return len(await cancel_queued(session, key_ids=(await session.scalars(keys)).all(), error="cancelled"))


async def requeue(session: AsyncSession, *, job_id: str, expires_seconds: float, is_confirmed: bool) -> Change:
    """Has a job wait again that failed, was lost or cancelled: with all its attempts, for so many seconds at most.
    Unless that is confirmed, it only says what would become of it.
    """
    images = await find_images(session, job_id=job_id)
    refusal = await _refusal_to_requeue(session, images)
    warning = "A provider was asked for it before: it may be paid twice" if any(i.sent_at for i in images) else None
    if refusal or not is_confirmed:
        return Change(len(images), refusal, warning)
    statement, request_id = QUERIES["requeue_job"], images[0].request_id
    queued = await execute(session, statement, request_id=request_id, expires_seconds=expires_seconds)
    if not queued:
        taken = "its Idempotency-Key was used for another request since, or it has changed meanwhile"
        return Change(0, taken, warning)
    if queued[0].refusal is not None:
        return Change(0, _UNAFFORDABLE[queued[0].refusal], warning)
    return Change(len(queued), None, warning)


async def _refusal_to_requeue(session: AsyncSession, images: Sequence[JobImage]) -> str | None:
    if not images:
        return "there is no such job"
    statuses = {each.status for each in images}
    if statuses & _UNFINISHED:
        return "it has not ended"
    if "delivered" in statuses:
        return "it was delivered" if len(statuses) == 1 else "it was delivered in part"
    if any(each.deleted_at for each in images):
        return "its prompt is erased: it expired more than a day ago, or it or its account was deleted"
    key = await session.get_one(ApiKey, images[0].key_id)
    if key.revoked_at is not None:
        return f"its key {key.id} is revoked"
    return "its account is disabled" if key.is_suspended else None


async def set_lanes(session: AsyncSession, *, account_id: str, values: Mapping[str, int | None]) -> None:
    """Sets `weight` or `most` of both lanes of the account. Workers see it when they take jobs next."""
    lanes = insert(Lane).values([{"account_id": account_id, "lane_class": each, **values} for each in sorted(CLASSES)])
    changed = lanes.on_conflict_do_update(index_elements=[Lane.account_id, Lane.lane_class], set_=values)
    await session.execute(changed)
