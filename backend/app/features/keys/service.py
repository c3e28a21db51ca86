"""Creates, lists and revokes API keys, and finds the caller that a key belongs to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.caps import KeyCapPeriod, set_key_cap
from app.core.cursor import Cursor
from app.core.errors import Conflict, NotFound
from app.core.security import KEY_PREFIX_LENGTH, KeyEnvironment, hash_api_key, id_of, is_id, new_api_key, new_id
from app.features.auth.service import InvalidToken
from app.generations.callers import UNREVOKED, find_caller_where
from app.generations.collaborators import Generations
from app.generations.jobs.cancel import cancel_queued, note_cancelled
from app.generations.spec import Caller
from app.models import Account, ApiKey, Usage, User

_UNUSED_KEPT = timedelta(hours=1)
_WAS_NOT_USED = ApiKey.last_used_at.is_(None) & ~exists().where(Usage.key_id == ApiKey.id)

_PUBLIC_COLUMNS = ("id", "name", "environment", "prefix", "created_at", "last_used_at", "revoked_at")


class KeyNotFound(NotFound):
    code, detail = "key_not_found", "There is no such key"


class KeyLimitReached(Conflict):
    code, detail = "key_limit_reached", "The account has as many keys as it may have; revoke one first"


class KeyAlreadyCreated(Conflict):
    code = "key_already_created"
    detail = "This form has created its key already, which was shown then. Send it once more to create another key"


@dataclass(frozen=True)
class CreatedKey:
    """A new key with its raw text, which is not stored."""

    id: str
    name: str
    environment: KeyEnvironment
    prefix: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    key: str
    cap: None = None


async def create(
    session: AsyncSession,
    *,
    user: User,
    name: str,
    environment: KeyEnvironment,
    keys_max: int,
    form_id: str | None = None,
) -> CreatedKey:
    """A new key of the user's account. The account's row is locked while its keys are counted, so that parallel calls
    cannot exceed `keys_max`.

    Raises KeyAlreadyCreated where the form with this id has created a key with this name and environment before,
    KeyLimitReached at `keys_max` unrevoked keys, and InvalidToken if the account was disabled meanwhile.
    """
    owner = select(Account.id).where(Account.id == user.account_id, Account.is_active).with_for_update(key_share=True)
    if await session.scalar(owner) is None:
        raise InvalidToken
    key_id = new_id("key")
    if form_id is not None:
        key_id = id_of("key", json.dumps([user.account_id, form_id, name, environment]))
        if await session.get(ApiKey, key_id) is not None:
            raise KeyAlreadyCreated
    count = select(func.count()).where(ApiKey.account_id == user.account_id, UNREVOKED)
    if (await session.scalar(count) or 0) >= keys_max:
        raise KeyLimitReached
    await _forget_unused(session, account_id=user.account_id, kept_max=keys_max)
    raw = new_api_key(environment)
    key = ApiKey(
        id=key_id,
        account_id=user.account_id,
        user_id=user.id,
        name=name,
        environment=environment,
        prefix=raw[:KEY_PREFIX_LENGTH],
        key_hash=hash_api_key(raw),
    )
    session.add(key)
    await session.flush()
    await session.refresh(key)
    return CreatedKey(key=raw, **{name: getattr(key, name) for name in _PUBLIC_COLUMNS})


async def _forget_unused(session: AsyncSession, *, account_id: str, kept_max: int) -> None:
    """Deletes the account's keys that were revoked before they were used, but the newest `kept_max` and those that a
    process may still have in its cache of callers. Nothing refers to them: a generation moves `last_used_at`.
    """
    unused = ApiKey.account_id == account_id, ApiKey.revoked_at < func.now() - _UNUSED_KEPT, _WAS_NOT_USED
    newest_first = select(ApiKey.id).where(*unused).order_by(ApiKey.created_at.desc(), ApiKey.id)
    # What the ledger holds is skipped: it locks keys in an order of its own.
    stale = newest_first.offset(kept_max).with_for_update(skip_locked=True)
    await session.execute(delete(ApiKey).where(ApiKey.id.in_(stale)))


async def find_all(
    session: AsyncSession, *, account_id: str, include_revoked: bool = False, after: Cursor | None = None, limit: int
) -> Sequence[ApiKey]:
    """The account's own keys, newest first: at most `limit`, of those that follow `after`."""
    statement = select(ApiKey).where(ApiKey.account_id == account_id)
    if not include_revoked:
        statement = statement.where(UNREVOKED)
    if after is not None:
        statement = statement.where(tuple_(ApiKey.created_at, ApiKey.id) < tuple_(after.created_at, after.id))
    newest_first = statement.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit)
    return (await session.scalars(newest_first)).all()


async def find_one(session: AsyncSession, *, account_id: str, key_id: str) -> ApiKey:
    """The account's own unrevoked key with this id. Raises KeyNotFound for any other id."""
    return await _find_own(session, account_id=account_id, key_id=key_id)


async def set_cap(
    session: AsyncSession, *, account_id: str, key_id: str, amount: int | None, period: KeyCapPeriod
) -> ApiKey:
    """Sets the most that may be spent with the account's own unrevoked key in each period, None for no cap; the key as
    it is then. Raises KeyNotFound for any other id.
    """
    if not is_id("key", key_id) or not await set_key_cap(
        session, account_id=account_id, key_id=key_id, amount=amount, period=period
    ):
        raise KeyNotFound
    return await _find_own(session, account_id=account_id, key_id=key_id)


async def revoke_for_owner(generations: Generations, *, account_id: str, key_id: str) -> None:
    """`revoke` in a transaction of its own. Once this returns, callers who wait for what it cancelled are woken."""
    async with generations.sessions.begin() as session:
        cancelled = await revoke(session, account_id=account_id, key_id=key_id)
    note_cancelled(generations, cancelled, error="key_revoked")


async def revoke(session: AsyncSession, *, account_id: str, key_id: str) -> Sequence[str]:
    """Revokes the key, and cancels what waits under it: the ids of these images. Once the transaction has committed, no
    further generation is recorded under it, and none is handed to a worker.

    Raises KeyNotFound for a key that is revoked, belongs to another account or does not exist.
    """
    key = await _find_own(session, account_id=account_id, key_id=key_id, for_update=True)
    # The time at which the lock is held, not the transaction's start: no generation is recorded after it.
    key.revoked_at = await session.scalar(select(func.clock_timestamp()))
    return await cancel_queued(session, key_ids=[key_id], error="key_revoked")


async def _find_own(session: AsyncSession, *, account_id: str, key_id: str, for_update: bool = False) -> ApiKey:
    own = select(ApiKey).where(ApiKey.id == key_id, ApiKey.account_id == account_id, UNREVOKED)
    statement = own.with_for_update(key_share=True) if for_update else own
    key = await session.scalar(statement) if is_id("key", key_id) else None
    if key is None:
        raise KeyNotFound
    return key


async def find_caller(session: AsyncSession, *, key_hash: bytes) -> Caller | None:
    """The caller with the active key of this hash, and its limits; None where there is no such key."""
    return await find_caller_where(session, ApiKey.key_hash == key_hash)


async def find_own_caller(session: AsyncSession, *, account_id: str, key_id: str) -> Caller:
    """The caller that the account's own active key with this id stands for. Raises KeyNotFound for any other id."""
    own = ApiKey.id == key_id, ApiKey.account_id == account_id
    caller = await find_caller_where(session, *own) if is_id("key", key_id) else None
    if caller is None:
        raise KeyNotFound
    return caller
