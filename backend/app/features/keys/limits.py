"""Limits that an operator sets for a key or an account, in place of the settings'."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.limit_format import CONCURRENCY_MAX, NUMBER_PATTERN
from app.core.limit_settings import LimitSettings
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
    """The limits that were set for a key or an account, by name; None where none was set, and what holds there."""

    owner: str
    values: Mapping[str, str | int | None]
    defaults: Mapping[str, str | int]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value or f'default ({self.defaults[name]})'}" for name, value in self.values.items())


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
    if not change:
        raise ConfigurationError("Name a limit to set: --generate, --generate-per-key or --concurrency.")
    if not change.keys() <= columns.keys():
        raise ConfigurationError("--generate-per-key is for accounts; the limit of one key is --generate.")
    values = {columns[name]: value for name, value in change.items()}
    of_key = update(ApiKey).where(ApiKey.id == owner).returning(ApiKey.id)
    of_account = update(Account).where(Account.id == account_id_of(owner)).returning(Account.id)
    return await session.scalar((of_key if is_key else of_account).values(**values)) is not None


async def find_limits(session: AsyncSession, *, owner: str, settings: LimitSettings) -> list[OwnLimits]:
    """The limits set for the key with this id, or for the account that `account_id_of` means and then for its unrevoked
    keys; empty where there is no such one.
    """
    is_key = is_id("key", owner)
    of_key = select(ApiKey.account_id).where(ApiKey.id == owner, UNREVOKED).scalar_subquery()
    account = await session.scalar(select(Account).where(Account.id == (of_key if is_key else account_id_of(owner))))
    if account is None:
        return []
    which = ApiKey.id == owner if is_key else ApiKey.account_id == account.id
    keys = await session.scalars(select(ApiKey).where(which, UNREVOKED).order_by(ApiKey.created_at))
    of_account = OwnLimits(owner.lower(), _set(account, _ACCOUNT_COLUMNS), _defaults_of_accounts(settings))
    of_keys = [OwnLimits(key.id, _set(key, _KEY_COLUMNS), _defaults_of_keys(of_account)) for key in keys]
    return of_keys if is_key else [of_account, *of_keys]


def _set(row: Account | ApiKey, columns: Mapping[str, str]) -> Mapping[str, str | int | None]:
    return {name: getattr(row, column) for name, column in columns.items()}


def _defaults_of_accounts(settings: LimitSettings) -> Mapping[str, str | int]:
    return {
        "generate_limit": settings.generate_limit_per_account,
        "generate_limit_per_key": settings.generate_limit_per_key,
        "generate_concurrency": settings.generate_concurrency_per_key,
    }


def _defaults_of_keys(account: OwnLimits) -> Mapping[str, str | int]:
    """What its account has for each of its keys."""
    named = {"generate_limit": "generate_limit_per_key", "generate_concurrency": "generate_concurrency"}
    return {name: account.values[of] or account.defaults[of] for name, of in named.items()}


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
