"""Keys as an operator finds and revokes them, whoever owns them, by commands alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.security import KEY_PREFIX_LENGTH, KeyEnvironment, hash_api_key, is_id
from app.core.settings import ConfigurationError
from app.features.auth.administration import account_id_of
from app.features.keys import service
from app.models import ApiKey, User

_PREFIX = re.compile(r"nb_(live|test)_[0-9a-f]{1,8}", re.ASCII)


@dataclass(frozen=True)
class KeySummary:
    """A key with its owner. Its limits are its own; None where the account's hold."""

    id: str
    name: str
    environment: KeyEnvironment
    prefix: str
    email: str | None
    account_id: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime | None
    is_suspended: bool
    generate_limit: str | None
    generate_concurrency: int | None


async def find_page(
    session: AsyncSession, *, which: ColumnElement[bool], after: str, limit: int
) -> Sequence[KeySummary]:
    """At most `limit` keys of those that are meant and whose ids follow `after`, in order of id; revoked ones too."""
    of_key = ApiKey.id, ApiKey.name, ApiKey.environment, ApiKey.prefix
    times = ApiKey.created_at, ApiKey.last_used_at, ApiKey.revoked_at, ApiKey.expires_at
    limits = ApiKey.is_suspended, ApiKey.generate_limit, ApiKey.generate_concurrency
    statement = (
        select(*of_key, User.email, ApiKey.account_id, *times, *limits)
        .outerjoin(User, User.id == ApiKey.user_id)
        .where(which, ApiKey.id > after)
        .order_by(ApiKey.id)
        .limit(limit)
    )
    rows: Sequence[Any] = (await session.execute(statement)).all()
    return [KeySummary(*row) for row in rows]


def keys_of(owner: str) -> ColumnElement[bool]:
    """Which keys are those of the account with this email, in any case, or with this id or that of its user."""
    return ApiKey.account_id == account_id_of(owner)


def key_named(text: str, *, is_exact: bool = False) -> ColumnElement[bool]:
    """Which keys have this id or, unless one exact key is meant, begin so. Raises ConfigurationError for any other
    text, and for a whole key: on a command line it stands in the shell's history.
    """
    if is_id("key", text):
        return ApiKey.id == text
    if len(text) > KEY_PREFIX_LENGTH and text.startswith("nb_"):
        raise ConfigurationError(
            "The shell keeps what a command line says: send a whole key on standard input, with --stdin."
        )
    if is_exact:
        hint = f"; `nanobanana keys find {text}` prints its id" if _PREFIX.fullmatch(text) else ""
        raise ConfigurationError(f"Name the key by its id, such as key_28fm63cjp43w44255s68{hint}.")
    if not _PREFIX.fullmatch(text):
        raise ConfigurationError(
            "Name the key by its id, or by its first 9 to 16 characters, such as nb_live_12345678."
        )
    return ApiKey.prefix.startswith(text, autoescape=True)


def key_itself(raw: str) -> ColumnElement[bool]:
    """Which key is this whole one. Raises ConfigurationError for a text that is none."""
    key_hash = hash_api_key(raw)
    if key_hash is None:
        raise ConfigurationError("What was sent is no API key: nb_live_ or nb_test_ and 32 hexadecimal digits.")
    return ApiKey.key_hash == key_hash


async def revoke(session: AsyncSession, *, key: KeySummary) -> bool:
    """Revokes the key as its owner would; False where it was revoked or is gone."""
    try:
        await service.revoke(session, account_id=key.account_id, key_id=key.id)
    except service.KeyNotFound:
        return False
    return True
