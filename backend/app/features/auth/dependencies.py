"""What accounts offer to routes: the user who is logged in, and the limits on sign-ups and password checks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core.db import Session
from app.core.settings import Settings
from app.core.web.address import Origin, origin_of
from app.core.web.body import json_body
from app.features.auth.schemas import Credentials
from app.features.auth.service import Accounts, InvalidCredentials, InvalidToken, WrongPassword, authenticate
from app.models import User
from app.ratelimit import Charge, Limit, Limiter
from app.ratelimit.headers import enforce, tell

_bearer = HTTPBearer(
    scheme_name="Login token",
    bearerFormat="JWT",
    description="The `access_token` that `POST /v1/auth/login` answers.",
    auto_error=False,
)


_GROUP = "sign-in"  # of the limiter: all that is decided before anybody has shown who they are


@dataclass(frozen=True)
class OriginLimits:
    """How often something may be tried from one address, from one network, and from everywhere together."""

    name: str
    per_ip: Limit
    per_network: Limit
    everywhere: Limit

    def charges(self, origin: Origin) -> Sequence[Charge]:
        return [
            Charge(f"{self.name}-ip", origin.host, self.per_ip),
            Charge(f"{self.name}-network", origin.network, self.per_network),
            Charge(f"{self.name}-global", "everybody", self.everywhere),
        ]


@dataclass(frozen=True)
class SignInLimits:
    """How often one may sign up or log in, and how often an account may be guessed at."""

    limiter: Limiter
    register: OriginLimits
    register_per_account: Limit
    login: OriginLimits
    login_per_account: Limit
    login_per_account_anywhere: Limit

    @classmethod
    def of(cls, settings: Settings, limiter: Limiter) -> "SignInLimits":
        parse = Limit.parse
        return cls(
            limiter,
            OriginLimits(
                "register",
                parse(settings.register_limit_per_ip),
                parse(settings.register_limit_per_network),
                parse(settings.register_limit_global),
            ),
            parse(settings.register_limit_per_account),
            OriginLimits(
                "login",
                parse(settings.login_limit_per_ip),
                parse(settings.login_limit_per_network),
                parse(settings.login_limit_global),
            ),
            parse(settings.login_limit_per_account),
            parse(settings.login_limit_per_account_anywhere),
        )


def _accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


CurrentAccounts = Annotated[Accounts, Depends(_accounts)]
_SentToken = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


@dataclass(frozen=True)
class SignInAttempt:
    """A request that signs up or has a password checked: the limits that it takes from, and where it comes from.

    The API and the console guard their routes with the functions below, and so take from the same limits.
    """

    request: Request
    limits: SignInLimits
    origin: Origin


async def _attempt(request: Request) -> SignInAttempt:
    return SignInAttempt(request, request.app.state.sign_in_limits, origin_of(request))


CurrentAttempt = Annotated[SignInAttempt, Depends(_attempt)]


async def limit_sign_ups(attempt: CurrentAttempt) -> None:
    """Raises RateLimited when this address, its network or everybody together has signed up too often."""
    await _take(attempt, attempt.limits.register)


async def limit_logins(attempt: CurrentAttempt) -> None:
    """Raises RateLimited when this address, its network or everybody together has tried to log in too often."""
    await _take(attempt, attempt.limits.login)


async def _take(attempt: SignInAttempt, limits: OriginLimits) -> None:
    taken = await attempt.limits.limiter.take(limits.charges(attempt.origin), group=_GROUP)
    # Only the limit of the caller's own address is in the headers: the others would show how busy other callers are.
    tell(attempt.request, taken.decisions[:1])
    enforce(attempt.request, taken)


async def limit_sign_ups_of(attempt: SignInAttempt, *, email: str) -> None:
    """Raises RateLimited when this canonical email has been signed up with too often."""
    charge = Charge("register-account", email, attempt.limits.register_per_account)
    enforce(attempt.request, await attempt.limits.limiter.take([charge], group=_GROUP))


@asynccontextmanager
async def count_failed_login(attempt: SignInAttempt, *, email: str) -> AsyncIterator[None]:
    """Around the check of a password of the account with this canonical email, whether there is one or not. A wrong
    password counts against the account, from this address and from all addresses together.

    Raises RateLimited when too many were wrong.
    """
    # Taken before the password is checked, and given back unless it was wrong: if it were counted afterwards, a hundred
    # guesses that arrive together would all be checked.
    limits, limiter = attempt.limits, attempt.limits.limiter
    charges = [
        Charge("login-account", f"{attempt.origin.host} {email}", limits.login_per_account),
        Charge("login-account-anywhere", email, limits.login_per_account_anywhere),
    ]
    enforce(attempt.request, await limiter.take(charges, group=_GROUP))
    try:
        yield
    except (InvalidCredentials, WrongPassword):
        raise
    except BaseException:
        await limiter.give_back(charges, group=_GROUP)
        raise
    await limiter.give_back(charges, group=_GROUP)


@asynccontextmanager
async def limited_login(attempt: SignInAttempt, *, email: str) -> AsyncIterator[None]:
    """All limits on the check of a password: those of `limit_logins`, then those of `count_failed_login`."""
    await limit_logins(attempt)
    async with count_failed_login(attempt, email=email):
        yield


async def _new_credentials(
    attempt: CurrentAttempt, credentials: Annotated[Credentials, json_body(Credentials)]
) -> Credentials:
    await limit_sign_ups_of(attempt, email=credentials.email)
    return credentials


NewCredentials = Annotated[Credentials, Depends(_new_credentials)]
"""Credentials to sign up with. Their email is counted whether or not they are accepted."""


async def _guarded_credentials(
    attempt: CurrentAttempt, credentials: Annotated[Credentials, json_body(Credentials)]
) -> AsyncIterator[Credentials]:
    async with count_failed_login(attempt, email=credentials.email):
        yield credentials


GuardedCredentials = Annotated[Credentials, Depends(_guarded_credentials, scope="function")]
"""Credentials to be checked. Failed checks count against the account, from this address and from anywhere."""


async def _current_user(session: Session, accounts: CurrentAccounts, sent: _SentToken) -> User:
    if sent is None:
        raise InvalidToken(credential_sent=False)
    return await authenticate(session, accounts, token=sent.credentials)


CurrentUser = Annotated[User, Depends(_current_user)]
"""The active account whose login token came with the request."""


async def _guarded_user(attempt: CurrentAttempt, accounts: CurrentAccounts, sent: _SentToken) -> AsyncIterator[User]:
    # The connection goes back to the pool before the route begins: hashing the password takes long.
    async with accounts.sessions.begin() as session:
        user = await _current_user(session, accounts, sent)
    async with limited_login(attempt, email=user.email):
        yield user


GuardedUser = Annotated[User, Depends(_guarded_user, scope="function")]
"""As CurrentUser, to have its password checked again: limited as a login is, and a wrong one counts as a failed one."""
