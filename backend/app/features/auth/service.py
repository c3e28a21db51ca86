"""What happens to accounts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import SessionMaker
from app.core.errors import Conflict, Invalid, Unauthorized
from app.core.pool import BoundedPool
from app.core.security import UNKNOWN_ACCOUNT_HASH, TokenKey, hash_password, is_id, new_id, verify_password
from app.models import User


class EmailAlreadyRegistered(Conflict):
    code, detail = "email_already_registered", "Email already registered"


class InvalidCredentials(Unauthorized):
    code, detail = "invalid_credentials", "Invalid email or password"


class InvalidToken(Unauthorized):
    code, detail = "invalid_token", "Invalid or expired login token"


@dataclass(frozen=True)
class Accounts:
    """The collaborators of every account's doings."""

    sessions: SessionMaker
    hashing: BoundedPool
    token_key: TokenKey
    token_seconds: int
    password_bytes_min: int
    clock: Callable[[], float]


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
    if len(password.encode()) < accounts.password_bytes_min:
        detail = f"Must be at least {accounts.password_bytes_min} bytes long"
        raise Invalid([{"pointer": "#/password", "detail": detail}])
    password_hash = await accounts.hashing.run(partial(hash_password, password))
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
    """A login token. No connection is held while the password is checked, and one hash is computed whether the account
    exists or not, so neither the answer nor its time tells which.

    Raises InvalidCredentials for a wrong password, an unknown email and a disabled account alike.
    """
    async with accounts.sessions.begin() as session:
        user = await session.scalar(select(User).where(User.email == email))
    password_hash = user.password_hash if user else UNKNOWN_ACCOUNT_HASH
    matches, better_hash = await accounts.hashing.run(partial(verify_password, password, password_hash))
    if user is None or not user.is_active or not matches:
        raise InvalidCredentials(credential_sent=False)
    if better_hash:
        await _upgrade_hash(accounts.sessions, user_id=user.id, old=password_hash, new=better_hash)
    token = accounts.token_key.issue(user.id, now=accounts.clock(), lifetime_seconds=accounts.token_seconds)
    return Login(access_token=token, expires_in=accounts.token_seconds)


async def authenticate(session: AsyncSession, accounts: Accounts, *, token: str) -> User:
    """The active account that a login token belongs to. Raises InvalidToken for anything else."""
    user_id = accounts.token_key.read(token, now=accounts.clock())
    if user_id is None or not is_id("usr", user_id):
        raise InvalidToken
    user = await session.scalar(select(User).where(User.id == user_id, User.is_active))
    if user is None:
        raise InvalidToken
    return user


async def _upgrade_hash(sessions: SessionMaker, *, user_id: str, old: str, new: str) -> None:
    # Only over the hash that was checked: a password that was changed meanwhile stays changed.
    statement = update(User).where(User.id == user_id, User.password_hash == old).values(password_hash=new)
    async with sessions.begin() as session:
        await session.execute(statement)
