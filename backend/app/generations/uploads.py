"""Images that callers upload, to go into generations: kept for a while, each for its account and environment."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import ColumnElement, delete, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.blobs import Blob
from app.core.errors import Conflict, Invalid, NotFound
from app.core.security import is_id, new_timed_id
from app.generations.collaborators import Generations
from app.generations.deletion_failures import DeletionFailures
from app.generations.errors import InvalidApiKey
from app.generations.spec import Caller, image_name
from app.models import Account, Upload
from app.providers import Size
from app.providers.intake import InvalidInput, TakenIn, take_in
from app.storage import StoreUnavailable, read_whole

_STORING = timedelta(hours=1)
"""Longer than any store takes for a file. What is not stored by then never will be: its process has died."""

_AT_A_TIME = 100

_EXPIRE_KEPT = text("""
    update uploads set is_stored = false, expires_at = now() where id in (
      select u.id from generations g cross join jsonb_array_elements(g.inputs) i
      join uploads u on u.id = i ->> 'id' and u.expires_at = (i ->> 'kept_until')::timestamptz
      where g.status in ('failed', 'lost', 'cancelled') and g.deleted_at is null and g.kind = 'edit'
      order by u.id for no key update of u skip locked
    )
""")
"""What was kept for a job alone (`inputs.keep_until`), in whichever way it has ended. The job's row may stay longer."""

_IS_STORED = Upload.is_stored.is_(True)


class UploadNotFound(NotFound):
    code, detail = "upload_not_found", "There is no such upload"


class UploadsFull(Conflict):
    code = "uploads_full"
    detail = "The account's uploads have as many bytes as they may: delete some, or wait until some expire"


async def save(generations: Generations, *, caller: Caller, sent: Blob, first_frame: bool, pointer: str) -> Upload:
    """The upload of these bytes, upright and without metadata, which is in the store and recorded. Of an animation the
    first frame is taken, where that is wanted.

    Raises Invalid, with the pointer, for what is no image that is taken; Unavailable where too much waits; and what
    `keep` raises.
    """
    async with generations.input_turns.turn(caller.account_id):  # so few images are in memory as a whole
        try:
            taken = await generations.taking_in.run(partial(take_in, await sent.read(), first_frame=first_frame))
        except InvalidInput as refused:
            raise Invalid([{"pointer": pointer, "detail": str(refused)}]) from None
        return await keep(generations, caller=caller, taken=taken, kept_for=generations.upload_bounds.kept_for)


async def keep(generations: Generations, *, caller: Caller, taken: TakenIn, kept_for: timedelta) -> Upload:
    """The upload of this image, which is in the store and recorded.

    Raises UploadsFull; InvalidApiKey where the account was disabled or deleted meanwhile; and Unavailable where the
    store cannot be written. A process that dies at any point leaves nothing that `sweep` does not find.
    """
    upload = await _record(generations, caller, taken)
    try:
        await generations.store.put(_name_of(upload), taken.content)
    except StoreUnavailable:
        with suppress(StoreUnavailable):  # else the sweep does it
            await _delete(generations, [upload])
        raise
    return await _show(generations, upload, kept_for)


async def keep_longer(
    generations: Generations, *, caller: Caller, ids: Collection[str], kept_for: timedelta
) -> Collection[str]:
    """Keeps these uploads for so long at least, from now on. Returns the ids of those that there are."""
    # Always later than it was: so `delete_unless_kept_longer` sees that somebody has asked for it.
    expires_at = func.greatest(Upload.expires_at + timedelta(microseconds=1), func.now() + kept_for)
    own = select(Upload.id).where(*_owned_by(caller), Upload.id.in_(ids)).order_by(Upload.id)
    kept = update(Upload).where(Upload.id.in_(own.with_for_update(key_share=True))).values(expires_at=expires_at)
    async with generations.sessions.begin() as session:
        return (await session.scalars(kept.returning(Upload.id))).all()


async def delete_unless_kept_longer(generations: Generations, kept_until: Mapping[str, datetime]) -> None:
    """Deletes those of these uploads that nobody has asked to keep for longer than until this, by id. Raises
    StoreUnavailable: then nobody sees them any more, and the sweep deletes them.
    """
    is_same = tuple_(Upload.id, Upload.expires_at).in_(list(kept_until.items()))
    same = select(Upload.id).where(is_same).order_by(Upload.id)
    # Not stored any more: a transaction with an earlier time, for which it has not expired, cannot keep it longer.
    ended = update(Upload).values(is_stored=False, expires_at=func.now())
    ended = ended.where(Upload.id.in_(same.with_for_update(key_share=True)))
    async with generations.sessions.begin() as session:
        found = (await session.scalars(ended.returning(Upload))).all()
    await _delete(generations, found)


async def find_all(session: AsyncSession, *, caller: Caller, before_id: str | None, limit: int) -> Sequence[Upload]:
    """What the caller's account uploaded in its environment, newest first: at most `limit`, older than `before_id`."""
    own = select(Upload).where(*_owned_by(caller))
    if before_id is not None:
        own = own.where(Upload.id < before_id)
    return (await session.scalars(own.order_by(Upload.id.desc()).limit(limit))).all()


async def find_one(session: AsyncSession, *, caller: Caller, upload_id: str) -> Upload:
    """One of them. Raises UploadNotFound for what is another account's, of the other environment, expired, deleted, or
    never was.
    """
    own = select(Upload).where(*_owned_by(caller), Upload.id == upload_id)
    found = await session.scalar(own) if is_id("upl", upload_id) else None
    if found is None:
        raise UploadNotFound
    return found


async def open_upload(generations: Generations, *, caller: Caller, upload_id: str) -> TakenIn:
    """The image of one of them. Raises what `find_one` raises, and Unavailable where the store cannot be read."""
    async with generations.sessions.begin() as session:
        found = await find_one(session, caller=caller, upload_id=upload_id)
    content = await read_whole(generations.store, _name_of(found))
    if content is None:
        raise UploadNotFound
    return TakenIn(content, found.format, Size(found.width, found.height))


async def delete_one(generations: Generations, *, caller: Caller, upload_id: str) -> None:
    """Deletes one of them for good. Raises what `find_one` raises, and Unavailable where the store cannot be reached:
    then it is to be asked again.
    """
    async with generations.sessions.begin() as session:
        found = await find_one(session, caller=caller, upload_id=upload_id)
    if not await _delete(generations, [found]):
        raise UploadNotFound


async def sweep(generations: Generations) -> None:
    """Deletes all that have expired, by the database's clock, and what was kept for jobs that have ended without an
    image; and shows in the metrics what is left. Raises StoreUnavailable.
    """
    async with generations.sessions.begin() as session:
        await session.execute(_EXPIRE_KEPT)
    await _delete_all(generations, Upload.expires_at <= func.now())
    kept = select(func.count(), func.coalesce(func.sum(Upload.bytes), 0))
    async with generations.sessions.begin() as session:
        number, size = (await session.execute(kept)).one()
    generations.metrics.pools.uploads.set(number)
    generations.metrics.pools.upload_bytes.set(size)


async def erase(generations: Generations, *, account_id: str) -> int:
    """Deletes all uploads of a deleted account. Returns how many are left, which are being stored: they are to be
    erased later. Raises StoreUnavailable.
    """
    await _delete_all(generations, Upload.account_id == account_id, _IS_STORED)
    left = select(func.count()).where(Upload.account_id == account_id)
    async with generations.sessions.begin() as session:
        return await session.scalar(left) or 0


async def _record(generations: Generations, caller: Caller, taken: TakenIn) -> Upload:
    """A row that nobody sees yet. The account's row is locked while its bytes are counted, so that parallel calls
    cannot exceed them, and no deleted account gets another upload.
    """
    of_account = Upload.account_id == caller.account_id
    owner = select(Account.id).where(Account.id == caller.account_id, Account.is_active)
    upload = Upload(
        id=new_timed_id("upl", now=generations.clock()),
        account_id=caller.account_id,
        environment=caller.environment,
        format=taken.format,
        width=taken.size.width,
        height=taken.size.height,
        bytes=len(taken.content),
        expires_at=func.now() + _STORING,
    )
    async with generations.sessions.begin() as session:
        if await session.scalar(owner.with_for_update(key_share=True)) is None:
            raise InvalidApiKey
        used = await session.scalar(select(func.coalesce(func.sum(Upload.bytes), 0)).where(of_account))
        if (used or 0) + upload.bytes > generations.upload_bounds.bytes_per_account:
            raise UploadsFull
        session.add(upload)
    return upload


async def _show(generations: Generations, upload: Upload, kept_for: timedelta) -> Upload:
    """The upload, which its account sees from now on."""
    shown = update(Upload).where(Upload.id == upload.id).values(is_stored=True, expires_at=func.now() + kept_for)
    async with generations.sessions.begin() as session:
        stored: Upload | None = await session.scalar(shown.returning(Upload))
    if stored is None:  # it was swept: storing it took longer than _STORING
        await generations.store.delete(_name_of(upload))
        raise StoreUnavailable
    return stored


async def _delete_all(generations: Generations, *which: ColumnElement[bool]) -> None:
    """Raises StoreUnavailable for those that could not be deleted, once all others are."""
    some = select(Upload).where(*which).limit(_AT_A_TIME)
    failures, is_last = DeletionFailures(), False
    while not (is_last or failures.are_many):
        async with generations.sessions.begin() as session:
            found = (await session.scalars(some.where(Upload.id.not_in(failures.ids)))).all()
        await _delete(generations, found, failures)
        is_last = len(found) < _AT_A_TIME
    failures.raise_first()


async def _delete(generations: Generations, uploads: Sequence[Upload], failures: DeletionFailures | None = None) -> int:
    """How many it has deleted. The file before the row: what fails or crashes between the two is deleted again. What
    the store does not delete is noted in `failures`; without it, StoreUnavailable is raised for it.
    """
    noted = failures or DeletionFailures()
    deleting = (noted.deletes(each.id, generations.store.delete(_name_of(each))) for each in uploads)
    ids = [each.id for each, is_deleted in zip(uploads, await asyncio.gather(*deleting), strict=True) if is_deleted]
    # In one order, and without waiting for another process that is deleting the same.
    free = select(Upload.id).where(Upload.id.in_(ids)).order_by(Upload.id).with_for_update(skip_locked=True)
    async with generations.sessions.begin() as session:
        deleted = (await session.scalars(delete(Upload).where(Upload.id.in_(free)).returning(Upload.id))).all()
    if failures is None:
        noted.raise_first()
    return len(deleted)


def _owned_by(caller: Caller) -> Sequence[ColumnElement[bool]]:
    own = Upload.account_id == caller.account_id, Upload.environment == caller.environment
    return *own, _IS_STORED, Upload.expires_at > func.now()


def _name_of(upload: Upload) -> str:
    return image_name(upload.id, upload.format)
