"""Logins in a browser: opaque tokens, stored as hashes, that the server can end."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.security import hash_session_token, new_session_token
from app.features.auth.service import (
    OWN_ACCOUNT,
    Accounts,
    InvalidCredentials,
    check_change,
    check_credentials,
    is_account_active,
    register,
    replace_password,
)
from app.models import Account, BrowserSession, User

SESSIONS_MAX = 20
"""How many sessions an account can have. Opening another one ends the oldest."""


@dataclass(frozen=True)
class OpenedSession:
    """A new session of `user`, valid for `expires_in` seconds. Its token is not stored."""

    token: str
    expires_in: int
    user: User


async def open_session(accounts: Accounts, *, email: str, password: str) -> OpenedSession:
    """A session of the account with this email and password. Raises what `check_credentials` raises."""
    user = await check_credentials(accounts, email=email, password=password)
    async with accounts.sessions.begin() as session:
        return await _open(session, user, days=accounts.session_days)


async def sign_up(accounts: Accounts, *, email: str, password: str, invitation: str | None) -> OpenedSession:
    """A session of a new account. Raises what `register` raises."""
    user = await register(accounts, email=email, password=password, invitation=invitation)
    async with accounts.sessions.begin() as session:
        return await _open(session, user, days=accounts.session_days)


async def find_session_user(session: AsyncSession, *, token: str) -> User | None:
    """The active account whose current session has this token; None for any other text."""
    token_hash = hash_session_token(token)
    if token_hash is None:
        return None
    current = BrowserSession.token_hash == token_hash, BrowserSession.expires_at > func.now(), Account.is_active
    return await session.scalar(select(User).join(BrowserSession).join(Account, OWN_ACCOUNT).where(*current))


async def end_session(session: AsyncSession, *, token: str) -> None:
    """Ends the session with this token, if there is one."""
    await session.execute(delete(BrowserSession).where(BrowserSession.token_hash == hash_session_token(token)))


async def change_password(accounts: Accounts, *, user: User, current_password: str, new_password: str) -> OpenedSession:
    """As the service's `change_password`, but the remaining login is a session, opened in the same transaction."""
    password_hash = await check_change(
        accounts, user=user, current_password=current_password, new_password=new_password
    )
    async with accounts.sessions.begin() as session:
        changed = await replace_password(session, user=user, password_hash=password_hash)
        return await _open(session, changed, days=accounts.session_days)


async def _open(session: AsyncSession, user: User, *, days: int) -> OpenedSession:
    """A session of `user`, whose row was read when the password was checked.

    Raises InvalidCredentials if the account was disabled or all its logins were ended meanwhile.
    """
    # The account's row is locked while its sessions are counted, so that parallel logins cannot exceed SESSIONS_MAX.
    unchanged = User.id == user.id, User.token_generation == user.token_generation
    locked = await session.scalar(select(User.id).where(*unchanged).with_for_update(key_share=True))
    if locked is None or not await is_account_active(session, user=user):
        raise InvalidCredentials(account_id=user.account_id)
    await _delete_oldest(session, user_id=user.id)
    token, lifetime = new_session_token(), timedelta(days=days)
    values = {"token_hash": hash_session_token(token), "user_id": user.id, "expires_at": func.now() + lifetime}
    await session.execute(insert(BrowserSession).values(values))
    return OpenedSession(token, int(lifetime.total_seconds()), user)


async def _delete_oldest(session: AsyncSession, *, user_id: str) -> None:
    # Expired sessions are deleted too. Nothing else deletes them: an account that never logs in again keeps at most
    # SESSIONS_MAX rows.
    own = BrowserSession.user_id == user_id
    newest = (
        select(BrowserSession.token_hash)
        .where(own, BrowserSession.expires_at > func.now())
        .order_by(BrowserSession.created_at.desc())
        .limit(SESSIONS_MAX - 1)
    )
    await session.execute(delete(BrowserSession).where(own, BrowserSession.token_hash.not_in(newest)))
