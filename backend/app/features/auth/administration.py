"""Accounts as an operator sees and changes them, by commands alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, FromClause, Select, func, literal, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.schemas import Body
from app.core.security import hash_password, is_id
from app.core.settings import ConfigurationError
from app.features.auth.schemas import Email, Password
from app.features.auth.service import OWN_ACCOUNT, end_logins
from app.generations.jobs.cancel import cancel_queued
from app.models import Account, ApiKey, BrowserSession, User, is_owner_of


@dataclass(frozen=True)
class AccountSummary:
    """An account with its user, who is gone where the account was deleted."""

    account_id: str
    user_id: str | None
    email: str | None
    created_at: datetime
    is_active: bool
    is_operator: bool | None
    keys: int
    """Those that are not revoked."""
    last_used_at: datetime | None
    """When one of its keys was last used."""
    last_log_in_at: datetime | None
    """In a browser: logins by token leave no trace."""


class _ChosenEmail(Body):
    email: Email


class _ChosenPassword(Body):
    password: Password


def read_email(text: str) -> str:
    """The canonical form of an email. Raises ConfigurationError for what is none."""
    try:
        return _ChosenEmail(email=text).email
    except ValidationError:
        raise ConfigurationError("EMAIL must be an email address such as ada@example.com.") from None


def hash_new_password(password: str, *, bytes_min: int) -> str:
    """Raises ConfigurationError for a password that could not be chosen by its user either."""
    try:
        _ChosenPassword(password=password)
    except ValidationError:
        raise ConfigurationError("The password must be text of 1 to 1024 bytes.") from None
    if len(password.encode()) < bytes_min:
        raise ConfigurationError(f"The password must be at least {bytes_min} bytes long.")
    return hash_password(password)


async def find_page(session: AsyncSession, *, part: str, after: str, limit: int) -> Sequence[AccountSummary]:
    """At most `limit` accounts of users whose email has this part, in order of email, of those behind `after`."""
    of_users = User.__table__.join(Account.__table__, OWN_ACCOUNT)
    chosen = _summaries(of_users).where(User.email > after, func.strpos(User.email, part.lower()) > 0)
    rows: Sequence[Any] = (await session.execute(chosen.order_by(User.email).limit(limit))).all()
    return [AccountSummary(*row) for row in rows]


async def find_one(session: AsyncSession, *, owner: str) -> AccountSummary | None:
    """The account with this email, with this id or with that of its user; a deleted one has only the latter two."""
    accounts = Account.__table__.outerjoin(User.__table__, is_owner_of(Account.id))
    chosen = _summaries(accounts).where(Account.id == account_id_of(owner))
    row: Any = (await session.execute(chosen)).one_or_none()
    return None if row is None else AccountSummary(*row)


def account_id_of(owner: str) -> ColumnElement[str]:
    """The id of the account of the user with this email, in any case; or this id, or that of this user's account."""
    if is_id("acc", owner) or is_id("usr", owner):
        return literal(f"acc_{owner[4:]}")
    return select(func.concat("acc_", func.substr(User.id, 5))).where(User.email == owner.lower()).scalar_subquery()


def user_named(owner: str) -> ColumnElement[bool]:
    """The condition of the user with this email, in any case, or with this id, or of this account."""
    if is_id("acc", owner) or is_id("usr", owner):
        return User.id == f"usr_{owner[4:]}"
    return User.email == owner.lower()


async def set_operator(session: AsyncSession, *, owner: str, is_operator: bool) -> bool:
    """Marks the user that `user_named` finds as an operator, or as none; False if there is no such user."""
    statement = update(User).where(user_named(owner)).values(is_operator=is_operator).returning(User.id)
    return await session.scalar(statement) is not None


async def set_password(session: AsyncSession, *, owner: str, password_hash: str) -> bool:
    """Replaces the password of the user that `user_named` finds, whatever it was, and ends every login; False if there
    is no such user.
    """
    return await end_logins(session, user_named(owner), password_hash=password_hash) is not None


async def set_account_active(session: AsyncSession, *, owner: str, active: bool) -> bool:
    """Disables the account of the user that `user_named` finds, with all its logins and keys, or enables them again;
    False if there is no such user. What waits under its keys is cancelled with that, and stays so.

    Its keys are locked by id after what `mark_active` locks: every transaction that locks several of these rows takes
    them in that order, so that no two wait for each other.
    """
    user = await mark_active(session, owner=owner, active=active)
    if user is None:
        return False
    keys = (
        select(ApiKey).where(ApiKey.account_id == user.account_id).order_by(ApiKey.id).with_for_update(key_share=True)
    )
    of_account = (await session.scalars(keys)).all()
    for key in of_account:
        key.is_suspended = not active
    if not active:
        await cancel_queued(session, key_ids=[key.id for key in of_account], error="account_disabled")
    return True


async def mark_active(session: AsyncSession, *, owner: str, active: bool) -> User | None:
    """Marks the account of the user that `user_named` finds as active or not; None if there is no such user.

    The user's row is locked first, so that no login begins meanwhile, then the account's, so that no key is created.
    """
    user = await session.scalar(select(User).where(user_named(owner)).with_for_update(key_share=True))
    if user is None:
        return None
    account = select(Account).where(Account.id == user.account_id).with_for_update(key_share=True)
    (await session.execute(account)).scalar_one().is_active = active
    await session.flush()
    return user


def _summaries(accounts: FromClause) -> Select[Any]:
    is_unrevoked = ApiKey.revoked_at.is_(None)
    keys = select(func.count().filter(is_unrevoked).label("count"), func.max(ApiKey.last_used_at).label("last_used_at"))
    of_account = keys.where(ApiKey.account_id == Account.id).lateral()
    log_ins = select(func.max(BrowserSession.created_at)).where(BrowserSession.user_id == User.id).scalar_subquery()
    user, account = (User.id, User.email), (Account.created_at, Account.is_active)
    return select(
        Account.id, *user, *account, User.is_operator, of_account.c.count, of_account.c.last_used_at, log_ins
    ).select_from(accounts.join(of_account, true()))
