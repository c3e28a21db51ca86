"""What accounts offer to routes: who is logged in, and the limits on those who are not yet."""

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
from app.core.web.rate_limit_headers import raise_if_refused, set_rate_limit_headers
from app.features.auth.schemas import Credentials
from app.features.auth.service import Accounts, InvalidCredentials, InvalidToken, WrongPassword, authenticate
from app.models import User
from app.ratelimit import Limit, Limiter, Take

_bearer = HTTPBearer(
    scheme_name="Login token",
    bearerFormat="JWT",
    description="The `access_token` that `POST /v1/auth/login` answers.",
    auto_error=False,
)


_GROUP = "sign-in"  # the limiter's group for everything that is decided before the caller is known


@dataclass(frozen=True)
class OriginLimits:
    """How often an action may be tried from one address, from one network, and from everywhere together."""

    name: str
    per_ip: Limit
    per_network: Limit
    everywhere: Limit

    def takes(self, origin: Origin) -> Sequence[Take]:
        return [
            Take(f"{self.name}-ip", origin.host, self.per_ip),
            Take(f"{self.name}-network", origin.network, self.per_network),
            Take(f"{self.name}-global", "everybody", self.everywhere),
        ]


@dataclass(frozen=True)
class SignInLimits:
    """How often clients may sign up and log in, and how often logins to one account may fail."""

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
    """Raises RateLimited if there were too many sign-ups from this address, from its network or from everywhere."""
    await _take(request, limits, limits.register.takes(origin))


async def limit_logins(request: Request, limits: CurrentLimits, origin: CallersOrigin) -> None:
    """Raises RateLimited if there were too many logins from this address, from its network or from everywhere."""
    await _take(request, limits, limits.login.takes(origin))


async def _take(request: Request, limits: SignInLimits, takes: Sequence[Take]) -> None:
    result = await limits.limiter.take(takes, group=_GROUP)
    set_rate_limit_headers(request, result.decisions[:1])  # the address's: others' traffic is not the caller's business
    raise_if_refused(request, result)


async def limit_sign_ups_of(request: Request, limits: SignInLimits, *, email: str) -> None:
    """Raises RateLimited if there were too many sign-ups with this canonical email."""
    take = Take("register-account", email, limits.register_per_account)
    raise_if_refused(request, await limits.limiter.take([take], group=_GROUP))


async def _new_credentials(
    request: Request, limits: CurrentLimits, credentials: Annotated[Credentials, json_body(Credentials)]
) -> Credentials:
    await limit_sign_ups_of(request, limits, email=credentials.email)
    return credentials


NewCredentials = Annotated[Credentials, Depends(_new_credentials)]
"""Credentials to sign up with. The email counts against its limit whether the sign-up succeeds or not."""


@asynccontextmanager
async def count_failed_login(
    request: Request, limits: SignInLimits, origin: Origin, *, email: str
) -> AsyncIterator[None]:
    """Surrounds the check of a password for this canonical email, whether it has an account or not.

    A wrong password counts against the account, from this address and from anywhere. Raises RateLimited before the
    check if there were too many.
    """
    # Taken before the password is checked and given back unless it was wrong: if wrong passwords were counted after the
    # check, a hundred guesses that arrive at once would all be checked.
    takes = [
        Take("login-account", f"{origin.host} {email}", limits.login_per_account),
        Take("login-account-anywhere", email, limits.login_per_account_anywhere),
    ]
    raise_if_refused(request, await limits.limiter.take(takes, group=_GROUP))
    try:
        yield
    except (InvalidCredentials, WrongPassword):
        raise
    except BaseException:
        await limits.limiter.give_back(takes, group=_GROUP)
        raise
    await limits.limiter.give_back(takes, group=_GROUP)


async def _guarded_credentials(
    request: Request,
    limits: CurrentLimits,
    origin: CallersOrigin,
    credentials: Annotated[Credentials, json_body(Credentials)],
) -> AsyncIterator[Credentials]:
    async with count_failed_login(request, limits, origin, email=credentials.email):
        yield credentials


GuardedCredentials = Annotated[Credentials, Depends(_guarded_credentials, scope="function")]
"""Credentials to be checked. A wrong password counts against the account, from this address and from anywhere."""


async def _current_user(session: Session, accounts: CurrentAccounts, sent: _SentToken) -> User:
    if sent is None:
        raise InvalidToken(credential_sent=False)
    return await authenticate(session, accounts, token=sent.credentials)


CurrentUser = Annotated[User, Depends(_current_user)]
"""The active account whose login token came with the request."""


async def _guarded_user(
    request: Request, limits: CurrentLimits, origin: CallersOrigin, accounts: CurrentAccounts, sent: _SentToken
) -> AsyncIterator[User]:
    async with accounts.sessions.begin() as session:  # and no longer: hashes take their time
        user = await _current_user(session, accounts, sent)
    await limit_logins(request, limits, origin)
    async with count_failed_login(request, limits, origin, email=user.email):
        yield user


GuardedUser = Annotated[User, Depends(_guarded_user, scope="function")]
"""CurrentUser, whose password is to be checked again, within the limits of a login; a wrong one is a failed login."""
