"""What happens to API keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.cursor import Cursor
from app.core.errors import Conflict, NotFound, Unauthorized
from app.core.security import KEY_PREFIX_LENGTH, KeyEnvironment, hash_api_key, is_id, new_api_key, new_id
from app.features.auth.service import InvalidToken
from app.models import ApiKey, User
from app.ratelimit import Limit


class KeyNotFound(NotFound):
    code, detail = "key_not_found", "There is no such key"


class KeyLimitReached(Conflict):
    code, detail = "key_limit_reached", "The account has as many keys as it may have; revoke one first"


class InvalidApiKey(Unauthorized):
    code, detail = "invalid_api_key", "Invalid API key"


@dataclass(frozen=True)
class CreatedKey:
    """A new key, with the raw text that is kept nowhere."""

    id: str
    name: str
    environment: KeyEnvironment
    prefix: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    key: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent an API key that was active when it was looked up."""

    key_id: str
    user_id: str
    environment: KeyEnvironment
    limit: Limit | None = None
    """Pictures of this key, and below of all the account's keys and at a time; None for what the settings say."""
    account_limit: Limit | None = None
    concurrency: int | None = None


async def create(
    session: AsyncSession, *, user_id: str, name: str, environment: KeyEnvironment, keys_max: int
) -> CreatedKey:
    """A new key for the account. The account's row is locked while its keys are counted, so that the cap holds
    however many are created at once.

    Raises KeyLimitReached at `keys_max` unrevoked keys, and InvalidToken if the account was disabled meanwhile.
    """
    owner = select(User.id).where(User.id == user_id, User.is_active).with_for_update(key_share=True)
    if await session.scalar(owner) is None:
        raise InvalidToken
    count = select(func.count()).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    if (await session.scalar(count) or 0) >= keys_max:
        raise KeyLimitReached
    raw = new_api_key(environment)
    key = ApiKey(
        id=new_id("key"),
        user_id=user_id,
        name=name,
        environment=environment,
        prefix=raw[:KEY_PREFIX_LENGTH],
        key_hash=hash_api_key(raw),
    )
    session.add(key)
    await session.flush()
    await session.refresh(key)
    return CreatedKey(key=raw, **{name: getattr(key, name) for name in _SHOWN})


async def find_all(
    session: AsyncSession, *, user_id: str, include_revoked: bool, after: Cursor | None, limit: int
) -> Sequence[ApiKey]:
    """The account's own keys, newest first, at most `limit`, from behind `after`."""
    statement = select(ApiKey).where(ApiKey.user_id == user_id)
    if not include_revoked:
        statement = statement.where(ApiKey.revoked_at.is_(None))
    if after is not None:
        statement = statement.where(tuple_(ApiKey.created_at, ApiKey.id) < tuple_(after.created_at, after.id))
    newest_first = statement.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit)
    return (await session.scalars(newest_first)).all()


async def find_one(session: AsyncSession, *, user_id: str, key_id: str) -> ApiKey:
    """The account's own unrevoked key with this id. Raises KeyNotFound for any other."""
    return await _find_own(session, user_id=user_id, key_id=key_id)


async def revoke(session: AsyncSession, *, user_id: str, key_id: str) -> None:
    """Stops the key for good. Once the transaction has committed, no generation is recorded under it any more.

    Raises KeyNotFound for a key that is revoked already, is another account's or never was.
    """
    key = await _find_own(session, user_id=user_id, key_id=key_id, is_to_change=True)
    # The wall clock, read under the lock, and not the transaction's start: no generation is younger than this.
    key.revoked_at = await session.scalar(select(func.clock_timestamp()))


async def _find_own(session: AsyncSession, *, user_id: str, key_id: str, is_to_change: bool = False) -> ApiKey:
    mine = select(ApiKey).where(ApiKey.id == key_id, ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    statement = mine.with_for_update(key_share=True) if is_to_change else mine
    key = await session.scalar(statement) if is_id("key", key_id) else None
    if key is None:
        raise KeyNotFound
    return key


async def find_caller(session: AsyncSession, *, key_hash: bytes) -> Caller | None:
    """Who has the active key with this hash, if anybody, and which limits they were given."""
    return await _find_caller(session, ApiKey.key_hash == key_hash)


async def find_own_caller(session: AsyncSession, *, user_id: str, key_id: str) -> Caller:
    """The account's own active key with this id, as if it had called. Raises KeyNotFound for any other."""
    mine = ApiKey.id == key_id, ApiKey.user_id == user_id
    caller = await _find_caller(session, *mine) if is_id("key", key_id) else None
    if caller is None:
        raise KeyNotFound
    return caller


async def _find_caller(session: AsyncSession, *which: ColumnElement[bool]) -> Caller | None:
    found = (await session.execute(_CALLER.where(*which, *ACTIVE))).one_or_none()
    if found is None:
        return None
    key_id, user_id, environment, limit, account_limit, concurrency = found
    return Caller(key_id, user_id, environment, _limit(limit), _limit(account_limit), concurrency)


def _limit(text: str | None) -> Limit | None:
    return None if text is None else Limit.parse(text)


async def set_account_active(session: AsyncSession, *, email: str, active: bool) -> bool:
    """Disables an account, its logins and all its keys, or enables them again; False if there is no such account.

    The account's row is locked first, so that no key is made meanwhile, then its keys in order of id: whoever locks
    several keys does so in that order, and nobody waits in a circle.
    """
    user = await session.scalar(select(User).where(User.email == email.lower()).with_for_update(key_share=True))
    if user is None:
        return False
    user.is_active = active
    keys = select(ApiKey).where(ApiKey.user_id == user.id).order_by(ApiKey.id).with_for_update(key_share=True)
    for key in await session.scalars(keys):
        key.is_suspended = not active
    return True


ACTIVE = ApiKey.revoked_at.is_(None), ApiKey.is_suspended.is_(False)
"""What a key must be for anything to happen in its name."""

_CALLER = select(
    ApiKey.id,
    ApiKey.user_id,
    ApiKey.environment,
    func.coalesce(ApiKey.generate_limit, User.generate_limit_per_key),
    User.generate_limit,
    func.coalesce(ApiKey.generate_concurrency, User.generate_concurrency_per_key),
).join(User, User.id == ApiKey.user_id)

_SHOWN = ("id", "name", "environment", "prefix", "created_at", "last_used_at", "revoked_at")
