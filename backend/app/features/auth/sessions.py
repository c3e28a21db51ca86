"""What happens to logins in a browser: opaque tokens that are stored as hashes and ended on the server."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.security import hash_session_token, new_session_token
from app.features.auth.service import (
    Accounts,
    InvalidCredentials,
    check_change,
    check_credentials,
    register,
    replace_password,
)
from app.models import BrowserSession, User

SESSIONS_MAX = 20
"""Sessions that an account can have. One more ends its oldest."""


@dataclass(frozen=True)
class OpenedSession:
    """A session that was just opened for `user`, good for `expires_in` seconds. Its token is kept nowhere."""

    token: str
    expires_in: int
    user: User


async def open_session(accounts: Accounts, *, email: str, password: str) -> OpenedSession:
    """A session for whoever has this email and password. Raises InvalidCredentials as `check_credentials` does."""
    user = await check_credentials(accounts, email=email, password=password)
    async with accounts.sessions.begin() as session:
        return await _open(session, user, days=accounts.session_days)


async def sign_up(accounts: Accounts, *, email: str, password: str) -> OpenedSession:
    """A session of a new account. Raises what `register` does."""
    user = await register(accounts, email=email, password=password)
    async with accounts.sessions.begin() as session:
        return await _open(session, user, days=accounts.session_days)


async def find_session_user(session: AsyncSession, *, token: str) -> User | None:
    """The active account whose session has this token and has not expired or been ended; None for any other text."""
    token_hash = hash_session_token(token)
    if token_hash is None:
        return None
    good = BrowserSession.token_hash == token_hash, BrowserSession.expires_at > func.now(), User.is_active
    return await session.scalar(select(User).join(BrowserSession).where(*good))


async def end_session(session: AsyncSession, *, token: str) -> None:
    """Ends the session with this token, if there is one."""
    await session.execute(delete(BrowserSession).where(BrowserSession.token_hash == hash_session_token(token)))


async def change_password(accounts: Accounts, *, user: User, current_password: str, new_password: str) -> OpenedSession:
    """As the service's `change_password`, and what goes on is a session, opened by the same commit."""
    password_hash = await check_change(
        accounts, user=user, current_password=current_password, new_password=new_password
    )
    async with accounts.sessions.begin() as session:
        changed = await replace_password(session, user=user, password_hash=password_hash)
        return await _open(session, changed, days=accounts.session_days)


async def _open(session: AsyncSession, user: User, *, days: int) -> OpenedSession:
    """A session for the account as it was when its password was checked.

    Raises InvalidCredentials if the account was disabled or all its logins were ended meanwhile.
    """
    # The account's row is locked while its sessions are counted, so that the cap holds however many are opened at once.
    unchanged = User.id == user.id, User.is_active, User.token_generation == user.token_generation
    if await session.scalar(select(User.id).where(*unchanged).with_for_update(key_share=True)) is None:
        raise InvalidCredentials(credential_sent=False)
    await _make_room(session, user_id=user.id)
    token, lifetime = new_session_token(), timedelta(days=days)
    values = {"token_hash": hash_session_token(token), "user_id": user.id, "expires_at": func.now() + lifetime}
    await session.execute(insert(BrowserSession).values(values))
    return OpenedSession(token, int(lifetime.total_seconds()), user)


async def _make_room(session: AsyncSession, *, user_id: str) -> None:
    # What has expired goes as well. Nothing else sweeps: an account that never comes back keeps SESSIONS_MAX rows at
    # most, and one that does has them swept by its next login.
    own = BrowserSession.user_id == user_id
    newest = (
        select(BrowserSession.token_hash)
        .where(own, BrowserSession.expires_at > func.now())
        .order_by(BrowserSession.created_at.desc())
        .limit(SESSIONS_MAX - 1)
    )
    await session.execute(delete(BrowserSession).where(own, BrowserSession.token_hash.not_in(newest)))
