"""Registers accounts, checks their passwords and login tokens, and ends logins."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from sqlalchemy import SQLColumnExpression, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.entries import post
from app.catalogue.prices import read_amount
from app.core.account_settings import Registration
from app.core.db import SessionMaker
from app.core.errors import Conflict, Invalid, Unauthorized
from app.core.fair_queue import FairPool
from app.core.pool import CancelScope, Result
from app.core.security import (
    UNKNOWN_ACCOUNT_HASH,
    TokenKey,
    TokenSubject,
    hash_password,
    is_id,
    new_id,
    verify_password,
)
from app.features.auth import invitations
from app.models import Account, BrowserSession, User
from app.services import Services

OWN_ACCOUNT = Account.id == func.concat("acc_", func.substr(User.id, 5))
"""What joins a user with the personal account."""

_WITH_ACCOUNT = select(User, Account.is_active).join(Account, OWN_ACCOUNT)


class EmailAlreadyRegistered(Conflict):
    code, detail = "email_already_registered", "Email already registered"


class InvalidCredentials(Unauthorized):
    code, detail = "invalid_credentials", "Invalid email or password"

    def __init__(self, *, account_id: str | None = None) -> None:
        """`account_id` is of the account with that email, if there is one: for the log, never for the client."""
        super().__init__(credential_sent=False)
        self.account_id = account_id


class InvalidToken(Unauthorized):
    code, detail = "invalid_token", "Invalid or expired login token"


class WrongPassword(Invalid):
    code, detail = "wrong_password", "The current password is wrong"

    def __init__(self) -> None:
        super().__init__([{"pointer": "#/current_password", "detail": "Is not the account's password"}])


@dataclass(frozen=True)
class Accounts:
    """The collaborators of the functions below.

    `cancelled_on_disconnect` cancels work once the client of the request at hand has left. What is written stays
    outside: it is written as a whole or not at all.
    `network` is that of the client: networks take turns at `hashing`.
    """

    sessions: SessionMaker
    hashing: FairPool
    token_key: TokenKey
    token_seconds: int
    session_days: int
    password_bytes_min: int
    clock: Callable[[], float]
    registration: Registration
    cancelled_on_disconnect: CancelScope = nullcontext
    trial_credit: int = 0
    network: str = ""

    @classmethod
    def of(cls, services: Services, *, cancelled_on_disconnect: CancelScope, network: str) -> "Accounts":
        settings = services.settings
        return cls(
            services.sessions,
            services.hashing,
            services.token_key,
            settings.login_token_minutes * 60,
            settings.session_days,
            settings.password_bytes_min,
            services.clock,
            settings.registration,
            cancelled_on_disconnect,
            read_amount(settings.trial_credit),
            network,
        )

    async def hash(self, function: Callable[[], Result]) -> Result:
        """The result of a function that hashes a password, computed in a thread in the turn of the client's network and
        while the client is there.

        Raises Unavailable when too many hashes wait.
        """
        async with self.cancelled_on_disconnect():
            return await self.hashing.run(function, group=self.network)


@dataclass(frozen=True)
class Login:
    """A successful login: its token is valid for `expires_in` seconds."""

    access_token: str
    expires_in: int


async def register(accounts: Accounts, *, email: str, password: str, invitation: str | None = None) -> User:
    """A new account with a canonical email. The password is hashed before the insert, so that a known email takes as
    long as an unknown one; of parallel calls with one email, the unique index lets one succeed. Where sign-up is by
    invitation, the account and the use of the invitation are one transaction.

    Raises RegistrationClosed, what `invitations.check` raises, EmailAlreadyRegistered, Invalid for a short password,
    and Unavailable when the hash queue is full.
    """
    is_by_invitation = accounts.registration == "invite"
    if accounts.registration == "closed":
        raise invitations.RegistrationClosed
    _require_length(accounts, password, pointer="#/password")
    if is_by_invitation:
        async with accounts.sessions.begin() as session:
            await invitations.check(session, token=invitation, email=email)
    password_hash = await accounts.hash(partial(hash_password, password))
    async with accounts.sessions.begin() as session:
        if is_by_invitation:
            await invitations.use(session, token=invitation, email=email)
        return await create_user(session, email=email, password_hash=password_hash, trial_credit=accounts.trial_credit)


async def create_user(
    session: AsyncSession, *, email: str, password_hash: str, trial_credit: int, is_operator: bool = False
) -> User:
    """A new user with a personal account, whose credit is `trial_credit` millionths. Raises EmailAlreadyRegistered."""
    values = {"id": new_id("usr"), "email": email, "password_hash": password_hash, "is_operator": is_operator}
    statement = insert(User).values(values).on_conflict_do_nothing(index_elements=[User.email]).returning(User)
    user = await session.scalar(statement)
    if user is None:
        raise EmailAlreadyRegistered
    await session.execute(insert(Account).values(id=user.account_id).on_conflict_do_nothing())
    if trial_credit:
        reference = f"trial:{user.account_id}"
        await post(session, account_id=user.account_id, kind="grant", amount=trial_credit, reference=reference)
    return user


async def log_in(accounts: Accounts, *, email: str, password: str) -> Login:
    """A login token. Raises what `check_credentials` raises."""
    return _login(accounts, await check_credentials(accounts, email=email, password=password))


async def check_credentials(accounts: Accounts, *, email: str, password: str) -> User:
    """The account with this email and password. No connection is held while the password is checked. One hash is
    computed whether the account exists or not, so that neither the error nor its time reveals it.

    Raises InvalidCredentials for a wrong password, an unknown email and a disabled account alike, and Unavailable when
    the hash queue is full.
    """
    async with accounts.sessions.begin() as session:
        found = (await session.execute(_WITH_ACCOUNT.where(User.email == email))).one_or_none()
    user, is_active = found or (None, False)
    password_hash = user.password_hash if user else UNKNOWN_ACCOUNT_HASH
    matches, better_hash = await accounts.hash(partial(verify_password, password, password_hash))
    if user is None or not is_active or not matches:
        raise InvalidCredentials(account_id=user.account_id if user else None)
    if better_hash:
        await _upgrade_hash(accounts.sessions, user_id=user.id, old=password_hash, new=better_hash)
    return user


async def authenticate(session: AsyncSession, accounts: Accounts, *, token: str) -> User:
    """The active account that a login token belongs to. Raises InvalidToken for any other text."""
    subject = accounts.token_key.read(token, now=accounts.clock())
    if subject is None or not is_id("usr", subject.user_id):
        raise InvalidToken
    user = await session.scalar(
        select(User).join(Account, OWN_ACCOUNT).where(User.id == subject.user_id, Account.is_active)
    )
    if user is None or user.token_generation != subject.generation:
        raise InvalidToken
    return user


async def end_all_sessions(session: AsyncSession, *, user_id: str) -> None:
    """Ends every login of the account: its login tokens and browser sessions are refused once this has committed. Its
    API keys stay valid.
    """
    await end_logins(session, User.id == user_id)


async def change_password(accounts: Accounts, *, user: User, current_password: str, new_password: str) -> Login:
    """Sets a new password, and ends every earlier login of the account; returns its only valid one. `user` is the row
    as it was when the client was authenticated. Raises what `check_change` and `replace_password` raise.
    """
    password_hash = await check_change(
        accounts, user=user, current_password=current_password, new_password=new_password
    )
    async with accounts.sessions.begin() as session:
        changed = await replace_password(session, user=user, password_hash=password_hash)
    return _login(accounts, changed)


async def check_change(accounts: Accounts, *, user: User, current_password: str, new_password: str) -> str:
    """The hash of the new password. No connection is held while hashes are computed.

    Raises Invalid for a new password below the minimum, WrongPassword, and Unavailable when the hash queue is full.
    """
    _require_length(accounts, new_password, pointer="#/new_password")
    matches, _ = await accounts.hash(partial(verify_password, current_password, user.password_hash))
    if not matches:
        raise WrongPassword
    return await accounts.hash(partial(hash_password, new_password))


async def replace_password(session: AsyncSession, *, user: User, password_hash: str) -> User:
    """Replaces the password that was checked, ends every login of the account, and returns its row as it is then.

    Raises InvalidToken where the client's own login was ended meanwhile, by another change of password, by
    `end_all_sessions` or because the account was disabled: of two parallel changes one succeeds.
    """
    unchanged = User.id == user.id, User.token_generation == user.token_generation
    changed = await end_logins(session, *unchanged, password_hash=password_hash)
    if changed is None or not await is_account_active(session, user=user):
        raise InvalidToken
    return changed


async def is_account_active(session: AsyncSession, *, user: User) -> bool:
    """Whether the user's account is active, and stays so until the transaction ends. Call it when the user's row is
    locked: a transaction that disables the account locks that first, then the account.
    """
    active = select(Account.id).where(Account.id == user.account_id, Account.is_active).with_for_update(read=True)
    return await session.scalar(active) is not None


async def end_logins(session: AsyncSession, *conditions: SQLColumnExpression[bool], **change: str) -> User | None:
    """Ends every login of the user of whom the conditions hold, and changes these columns; None where there is none.

    The user's row is locked first, as by a login that opens a session. Such a login has either committed, and its
    session is deleted here, or it waits for this transaction and then finds a newer token generation, and fails.
    """
    statement = (
        update(User).where(*conditions).values(token_generation=User.token_generation + 1, **change).returning(User)
    )
    user = await session.scalar(statement)
    if user is not None:
        await session.execute(delete(BrowserSession).where(BrowserSession.user_id == user.id))
    return user


def _require_length(accounts: Accounts, password: str, *, pointer: str) -> None:
    if len(password.encode()) < accounts.password_bytes_min:
        raise Invalid([{"pointer": pointer, "detail": f"Must be at least {accounts.password_bytes_min} bytes long"}])


def _login(accounts: Accounts, user: User) -> Login:
    # The token generation was read together with the password's hash: if the password was changed while it was being
    # checked, the token is refused.
    subject = TokenSubject(user.id, user.token_generation)
    token = accounts.token_key.issue(subject, now=accounts.clock(), lifetime_seconds=accounts.token_seconds)
    return Login(access_token=token, expires_in=accounts.token_seconds)


async def _upgrade_hash(sessions: SessionMaker, *, user_id: str, old: str, new: str) -> None:
    # Replaces only the hash that was checked, so that a password that was changed meanwhile stays.
    statement = update(User).where(User.id == user_id, User.password_hash == old).values(password_hash=new)
    async with sessions.begin() as session:
        await session.execute(statement)
