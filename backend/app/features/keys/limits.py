"""Limits that a key or an account was given instead of the settings'."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.limit_format import CONCURRENCY_MAX, NUMBER_PATTERN
from app.core.security import is_id
from app.core.settings import ConfigurationError
from app.models import ApiKey, User
from app.ratelimit import Limit

_NUMBER = re.compile(NUMBER_PATTERN)

Change = Mapping[str, str | int | None]
"""By column: a limit such as `600/minute` or a number; None for what the settings say."""

_KEY_COLUMNS = {"generate_limit": "generate_limit", "generate_concurrency": "generate_concurrency"}
_ACCOUNT_COLUMNS = {
    "generate_limit": "generate_limit",
    "generate_limit_per_key": "generate_limit_per_key",
    "generate_concurrency": "generate_concurrency_per_key",
}


@dataclass(frozen=True)
class OwnLimits:
    """What was set for a key or an account, by name; None where nothing was."""

    owner: str
    values: Mapping[str, str | int | None]


def read_change(texts: Mapping[str, str]) -> Change:
    """What an operator typed, by name; `default` takes a limit back. Raises ConfigurationError for what is no limit."""
    return {name: None if text == "default" else _read(name, text) for name, text in texts.items()}


async def set_limits(session: AsyncSession, *, owner: str, change: Change) -> bool:
    """Gives the key with this id, or the account with this email, limits of its own; False if there is none.

    Every process knows within ten seconds. Raises ConfigurationError for a limit that such an owner cannot have, and
    where there is nothing to change.
    """
    is_key = is_id("key", owner)
    columns = _KEY_COLUMNS if is_key else _ACCOUNT_COLUMNS
    if not change or not change.keys() <= columns.keys():
        raise ConfigurationError("Name a limit to set; --generate-per-key is for accounts.")
    values = {columns[name]: value for name, value in change.items()}
    of_key = update(ApiKey).where(ApiKey.id == owner).returning(ApiKey.id)
    of_account = update(User).where(User.email == owner.lower()).returning(User.id)
    return await session.scalar((of_key if is_key else of_account).values(**values)) is not None


async def find_limits(session: AsyncSession, *, email: str) -> list[OwnLimits]:
    """What was set for the account and for its unrevoked keys, the account first; empty if there is no such account."""
    user = await session.scalar(select(User).where(User.email == email.lower()))
    if user is None:
        return []
    statement = select(ApiKey).where(ApiKey.user_id == user.id, ApiKey.revoked_at.is_(None)).order_by(ApiKey.created_at)
    keys = await session.scalars(statement)
    return [_own(user.email, user, _ACCOUNT_COLUMNS), *(_own(key.id, key, _KEY_COLUMNS) for key in keys)]


def _own(owner: str, row: User | ApiKey, columns: Mapping[str, str]) -> OwnLimits:
    return OwnLimits(owner, {name: getattr(row, column) for name, column in columns.items()})


def _read(name: str, text: str) -> str | int:
    if name == "generate_concurrency":
        if _NUMBER.fullmatch(text) and int(text) <= CONCURRENCY_MAX:
            return int(text)
        raise ConfigurationError(f"The concurrency must be a number from 1 to {CONCURRENCY_MAX}.")
    try:
        Limit.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"A limit {error}.") from None
    return text
