"""Limits that an operator sets for a key or an account, in place of the settings'."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.limit_format import CONCURRENCY_MAX, NUMBER_PATTERN
from app.core.security import is_id
from app.core.settings import ConfigurationError
from app.features.auth.administration import account_id_of
from app.generations.callers import UNREVOKED
from app.models import Account, ApiKey
from app.ratelimit import Limit

_NUMBER = re.compile(NUMBER_PATTERN)

Change = Mapping[str, str | int | None]
"""New limits by name: a limit such as `600/minute`, or a number; None for the limit of the settings."""

_KEY_COLUMNS = {"generate_limit": "generate_limit", "generate_concurrency": "generate_concurrency"}
_ACCOUNT_COLUMNS = {
    "generate_limit": "generate_limit",
    "generate_limit_per_key": "generate_limit_per_key",
    "generate_concurrency": "generate_concurrency_per_key",
}


@dataclass(frozen=True)
class OwnLimits:
    """The limits that were set for a key or an account, by name; None where none was set."""

    owner: str
    values: Mapping[str, str | int | None]


def read_change(texts: Mapping[str, str]) -> Change:
    """An operator's input, by name; `default` removes a limit. Raises ConfigurationError where one is no limit."""
    return {name: None if text == "default" else _read(name, text) for name, text in texts.items()}


async def set_limits(session: AsyncSession, *, owner: str, change: Change) -> bool:
    """Sets limits of the key with this id, or of the account that `account_id_of` means; False if there is no such one.

    Every process applies them within ten seconds. Raises ConfigurationError for an empty change, and for a limit that
    keys cannot have.
    """
    is_key = is_id("key", owner)
    columns = _KEY_COLUMNS if is_key else _ACCOUNT_COLUMNS
    if not change or not change.keys() <= columns.keys():
        raise ConfigurationError("Name a limit to set; --generate-per-key is for accounts.")
    values = {columns[name]: value for name, value in change.items()}
    of_key = update(ApiKey).where(ApiKey.id == owner).returning(ApiKey.id)
    of_account = update(Account).where(Account.id == account_id_of(owner)).returning(Account.id)
    return await session.scalar((of_key if is_key else of_account).values(**values)) is not None


async def find_limits(session: AsyncSession, *, owner: str) -> list[OwnLimits]:
    """The limits set for the account that `account_id_of` means, then for its unrevoked keys; empty without one."""
    account = await session.scalar(select(Account).where(Account.id == account_id_of(owner)))
    if account is None:
        return []
    statement = select(ApiKey).where(ApiKey.account_id == account.id, UNREVOKED).order_by(ApiKey.created_at)
    keys = await session.scalars(statement)
    return [
        _own_limits(owner.lower(), account, _ACCOUNT_COLUMNS),
        *(_own_limits(key.id, key, _KEY_COLUMNS) for key in keys),
    ]


def _own_limits(owner: str, row: Account | ApiKey, columns: Mapping[str, str]) -> OwnLimits:
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
