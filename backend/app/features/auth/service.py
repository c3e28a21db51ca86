"""What happens to accounts."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from sqlalchemy import SQLColumnExpression, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import SessionMaker
from app.core.errors import Conflict, Invalid, Unauthorized
from app.core.pool import BoundedPool, CancelScope, Result
from app.core.security import (
    UNKNOWN_ACCOUNT_HASH,
    TokenKey,
    TokenSubject,
    hash_password,
    is_id,
    new_id,
    verify_password,
)
from app.models import BrowserSession, User


class EmailAlreadyRegistered(Conflict):
    code, detail = "email_already_registered", "Email already registered"


class InvalidCredentials(Unauthorized):
    code, detail = "invalid_credentials", "Invalid email or password"


class InvalidToken(Unauthorized):
    code, detail = "invalid_token", "Invalid or expired login token"


class WrongPassword(Invalid):
    code, detail = "wrong_password", "The current password is wrong"

    def __init__(self) -> None:
        super().__init__([{"pointer": "#/current_password", "detail": "Is not the account's password"}])


@dataclass(frozen=True)
class Accounts:
    """The collaborators of every account's doings.

    `cancelled_on_disconnect` cancels work once the client of the request at hand has left. What is written stays
    outside: it is written as a whole or not at all.
    """

    sessions: SessionMaker
    hashing: BoundedPool
    token_key: TokenKey
    token_seconds: int
    session_days: int
    password_bytes_min: int
    clock: Callable[[], float]
    cancelled_on_disconnect: CancelScope = nullcontext

    async def hash(self, function: Callable[[], Result]) -> Result:
        """The result of a function that hashes a password, computed in a thread while the client is there.

        Raises Unavailable when too many hashes wait.
        """
        async with self.cancelled_on_disconnect():
            return await self.hashing.run(function)


@dataclass(frozen=True)
class Login:
    """A login that succeeded: its token is good for `expires_in` seconds."""

    access_token: str
    expires_in: int


async def register(accounts: Accounts, *, email: str, password: str) -> User:
    """A new account with a canonical email. The password is hashed before the database is asked, so known and unknown
    addresses cost the same; the unique index alone decides between two who come at once.

    Raises EmailAlreadyRegistered, Invalid for a password below the minimum, and Unavailable when too many hashes wait.
    """
    _require_length(accounts, password, pointer="#/password")
    password_hash = await accounts.hash(partial(hash_password, password))
    statement = (
        insert(User)
        .values(id=new_id("usr"), email=email, password_hash=password_hash)
        .on_conflict_do_nothing(index_elements=[User.email])
        .returning(User)
    )
    async with accounts.sessions.begin() as session:
        user = await session.scalar(statement)
    if user is None:
        raise EmailAlreadyRegistered
    return user


async def log_in(accounts: Accounts, *, email: str, password: str) -> Login:
    """A login token. Raises InvalidCredentials as `check_credentials` does."""
    return _login(accounts, await check_credentials(accounts, email=email, password=password))


async def check_credentials(accounts: Accounts, *, email: str, password: str) -> User:
    """The account with this email and password. No connection is held while the password is checked, and one hash is
    computed whether the account exists or not, so neither the answer nor its time tells which.

    Raises InvalidCredentials for a wrong password, an unknown email and a disabled account alike.
    """
    async with accounts.sessions.begin() as session:
        user = await session.scalar(select(User).where(User.email == email))
    password_hash = user.password_hash if user else UNKNOWN_ACCOUNT_HASH
    matches, better_hash = await accounts.hash(partial(verify_password, password, password_hash))
    if user is None or not user.is_active or not matches:
        raise InvalidCredentials(credential_sent=False)
    if better_hash:
        await _upgrade_hash(accounts.sessions, user_id=user.id, old=password_hash, new=better_hash)
    return user


async def authenticate(session: AsyncSession, accounts: Accounts, *, token: str) -> User:
    """The active account that a login token belongs to. Raises InvalidToken for anything else."""
    subject = accounts.token_key.read(token, now=accounts.clock())
    if subject is None or not is_id("usr", subject.user_id):
        raise InvalidToken
    user = await session.scalar(select(User).where(User.id == subject.user_id, User.is_active))
    if user is None or user.token_generation != subject.generation:
        raise InvalidToken
    return user


async def end_all_sessions(session: AsyncSession, *, user_id: str) -> None:
    """Ends every login of the account: all its login tokens and browser sessions are refused once this has committed.
    Its API keys go on working.
    """
    await _end_logins(session, User.id == user_id)


async def change_password(accounts: Accounts, *, user: User, current_password: str, new_password: str) -> Login:
    """Gives the account, as it was when its caller was authenticated, a new password, and ends every login that it had;
    the one that is returned is its only one. Raises what `check_change` and `replace_password` do.
    """
    password_hash = await check_change(
        accounts, user=user, current_password=current_password, new_password=new_password
    )
    async with accounts.sessions.begin() as session:
        changed = await replace_password(session, user=user, password_hash=password_hash)
    return _login(accounts, changed)


async def check_change(accounts: Accounts, *, user: User, current_password: str, new_password: str) -> str:
    """The hash to store for a new password, computed while no connection is held.

    Raises Invalid for a new password below the minimum, WrongPassword, and Unavailable when too many hashes wait.
    """
    _require_length(accounts, new_password, pointer="#/new_password")
    matches, _ = await accounts.hash(partial(verify_password, current_password, user.password_hash))
    if not matches:
        raise WrongPassword
    return await accounts.hash(partial(hash_password, new_password))


async def replace_password(session: AsyncSession, *, user: User, password_hash: str) -> User:
    """Writes the hash only over the password that was checked, and ends every login of the account; the account as it
    is then.

    Raises InvalidToken where the caller's own login was ended meanwhile, by another change of password, by
    `end_all_sessions` or because the account was disabled: of two changes at once one wins.
    """
    unchanged = User.id == user.id, User.is_active, User.token_generation == user.token_generation
    changed = await _end_logins(session, *unchanged, password_hash=password_hash)
    if changed is None:
        raise InvalidToken
    return changed


def _require_length(accounts: Accounts, password: str, *, pointer: str) -> None:
    if len(password.encode()) < accounts.password_bytes_min:
        raise Invalid([{"pointer": pointer, "detail": f"Must be at least {accounts.password_bytes_min} bytes long"}])


def _login(accounts: Accounts, user: User) -> Login:
    # Of the generation that was read together with the password's hash: a password that was changed while it was being
    # checked gives a token that is refused.
    subject = TokenSubject(user.id, user.token_generation)
    token = accounts.token_key.issue(subject, now=accounts.clock(), lifetime_seconds=accounts.token_seconds)
    return Login(access_token=token, expires_in=accounts.token_seconds)


async def _end_logins(session: AsyncSession, *account: SQLColumnExpression[bool], **change: str) -> User | None:
    # The account's row first: a session that is being opened has its lock. It is either there by now, to be deleted, or
    # waits for this transaction and then finds another generation than the one whose password was checked.
    bump = update(User).where(*account).values(token_generation=User.token_generation + 1, **change).returning(User)
    user = await session.scalar(bump)
    if user is not None:
        await session.execute(delete(BrowserSession).where(BrowserSession.user_id == user.id))
    return user


async def _upgrade_hash(sessions: SessionMaker, *, user_id: str, old: str, new: str) -> None:
    # Only over the hash that was checked: a password that was changed meanwhile stays changed.
    statement = update(User).where(User.id == user_id, User.password_hash == old).values(password_hash=new)
    async with sessions.begin() as session:
        await session.execute(statement)
