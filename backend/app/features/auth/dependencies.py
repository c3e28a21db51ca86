"""The account that is logged in, and the limits of sign-ups and logins, as dependencies of routes."""

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


_GROUP = "sign-in"  # the limiter's group for requests that are not authenticated yet


@dataclass(frozen=True)
class OriginLimits:
    """How often an operation is allowed from one address, from one network, and from all together."""

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
    """How often clients may sign up and log in, and how often logins of an account may fail."""

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


def _sign_in_limits(request: Request) -> SignInLimits:
    limits: SignInLimits = request.app.state.sign_in_limits
    return limits


CurrentAccounts = Annotated[Accounts, Depends(_accounts)]
CurrentLimits = Annotated[SignInLimits, Depends(_sign_in_limits)]
CallersOrigin = Annotated[Origin, Depends(origin_of)]
_SentToken = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def limit_sign_ups(request: Request, limits: CurrentLimits, origin: CallersOrigin) -> None:
    """Raises RateLimited when the client's address, its network or all clients together sign up too often."""
    await _take(request, limits, limits.register.charges(origin))


async def limit_logins(request: Request, limits: CurrentLimits, origin: CallersOrigin) -> None:
    """Raises RateLimited when the client's address, its network or all clients together log in too often."""
    await _take(request, limits, limits.login.charges(origin))


async def _take(request: Request, limits: SignInLimits, charges: Sequence[Charge]) -> None:
    taken = await limits.limiter.take(charges, group=_GROUP)
    tell(request, taken.decisions[:1])  # only the client's own address: the others would show other clients' traffic
    enforce(request, taken)


async def limit_sign_ups_of(request: Request, limits: SignInLimits, *, email: str) -> None:
    """Raises RateLimited when there were too many sign-ups with this canonical email."""
    charge = Charge("register-account", email, limits.register_per_account)
    enforce(request, await limits.limiter.take([charge], group=_GROUP))


async def _new_credentials(
    request: Request, limits: CurrentLimits, credentials: Annotated[Credentials, json_body(Credentials)]
) -> Credentials:
    await limit_sign_ups_of(request, limits, email=credentials.email)
    return credentials


NewCredentials = Annotated[Credentials, Depends(_new_credentials)]
"""Credentials of a sign-up. It counts against the limit of its email, whether it succeeds or not."""


@asynccontextmanager
async def count_failed_login(
    request: Request, limits: SignInLimits, origin: Origin, *, email: str
) -> AsyncIterator[None]:
    """Wraps the check of a password. A wrong one counts against the account with this canonical email, existing or not:
    from this address, and from all addresses together.

    Raises RateLimited when too many were wrong.
    """
    # A unit is taken before the password is checked, and given back unless it was wrong: counted only afterwards, a
    # hundred parallel guesses would all be checked.
    charges = [
        Charge("login-account", f"{origin.host} {email}", limits.login_per_account),
        Charge("login-account-anywhere", email, limits.login_per_account_anywhere),
    ]
    enforce(request, await limits.limiter.take(charges, group=_GROUP))
    try:
        yield
    except (InvalidCredentials, WrongPassword):
        raise
    except BaseException:
        await limits.limiter.give_back(charges, group=_GROUP)
        raise
    await limits.limiter.give_back(charges, group=_GROUP)


async def _guarded_credentials(
    request: Request,
    limits: CurrentLimits,
    origin: CallersOrigin,
    credentials: Annotated[Credentials, json_body(Credentials)],
) -> AsyncIterator[Credentials]:
    async with count_failed_login(request, limits, origin, email=credentials.email):
        yield credentials


GuardedCredentials = Annotated[Credentials, Depends(_guarded_credentials, scope="function")]
"""Credentials of a login, whose failure counts against the account: from this address, and from all together."""


async def _current_user(session: Session, accounts: CurrentAccounts, sent: _SentToken) -> User:
    if sent is None:
        raise InvalidToken(credential_sent=False)
    return await authenticate(session, accounts, token=sent.credentials)


CurrentUser = Annotated[User, Depends(_current_user)]
"""The active account of the request's login token."""


async def _guarded_user(
    request: Request, limits: CurrentLimits, origin: CallersOrigin, accounts: CurrentAccounts, sent: _SentToken
) -> AsyncIterator[User]:
    async with accounts.sessions.begin() as session:  # closed before the password is hashed, which takes long
        user = await _current_user(session, accounts, sent)
    await limit_logins(request, limits, origin)
    async with count_failed_login(request, limits, origin, email=user.email):
        yield user


GuardedUser = Annotated[User, Depends(_guarded_user, scope="function")]
"""CurrentUser for routes that check the password again: limited as a login is, and a wrong one is a failed login."""
