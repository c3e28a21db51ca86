"""What accounts offer to routes: who is logged in, and the limits on those who are not yet."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core.db import Session
from app.core.settings import Settings
from app.core.web.address import client_network
from app.core.web.body import json_body
from app.features.auth.schemas import Credentials
from app.features.auth.service import Accounts, InvalidCredentials, InvalidToken, authenticate
from app.models import User
from app.ratelimit import Charge, Limit, Limiter
from app.ratelimit.headers import enforce, tell

_bearer = HTTPBearer(
    scheme_name="Login token",
    bearerFormat="JWT",
    description="The `access_token` that `POST /v1/auth/login` answers.",
    auto_error=False,
)


@dataclass(frozen=True)
class SignInLimits:
    """How often an address may sign up or log in, and how often an account may be guessed at."""

    limiter: Limiter
    register_per_ip: Limit
    login_per_ip: Limit
    login_per_account: Limit
    login_per_account_anywhere: Limit

    @classmethod
    def of(cls, settings: Settings, limiter: Limiter) -> "SignInLimits":
        return cls(
            limiter,
            Limit.parse(settings.register_limit_per_ip),
            Limit.parse(settings.login_limit_per_ip),
            Limit.parse(settings.login_limit_per_account),
            Limit.parse(settings.login_limit_per_account_anywhere),
        )


def _accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


def _sign_in_limits(request: Request) -> SignInLimits:
    limits: SignInLimits = request.app.state.sign_in_limits
    return limits


def _caller_network(request: Request) -> str:
    settings: Settings = request.app.state.settings
    return client_network(request, trusted=settings.trusted_proxies)


CurrentAccounts = Annotated[Accounts, Depends(_accounts)]
_Limits = Annotated[SignInLimits, Depends(_sign_in_limits)]
_Network = Annotated[str, Depends(_caller_network)]
_SentToken = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def limit_sign_ups(request: Request, limits: _Limits, network: _Network) -> None:
    """Raises RateLimited when this address has signed up too often."""
    decisions = await limits.limiter.take([Charge("register-ip", network, limits.register_per_ip)])
    tell(request, decisions)
    enforce(decisions)


async def limit_logins(request: Request, limits: _Limits, network: _Network) -> None:
    """Raises RateLimited when this address has tried to log in too often, to whatever account."""
    decisions = await limits.limiter.take([Charge("login-ip", network, limits.login_per_ip)])
    tell(request, decisions)
    enforce(decisions)


async def _guarded_credentials(
    limits: _Limits, network: _Network, credentials: Annotated[Credentials, json_body(Credentials)]
) -> AsyncIterator[Credentials]:
    # Taken before the password is checked and given back unless it was wrong: a check first and a count afterwards
    # would let a hundred guesses through that come at once.
    email = credentials.email
    charges = [
        Charge("login-account", f"{network} {email}", limits.login_per_account),
        Charge("login-account-anywhere", email, limits.login_per_account_anywhere),
    ]
    enforce(await limits.limiter.take(charges))
    try:
        yield credentials
    except InvalidCredentials:
        raise
    except BaseException:
        await limits.limiter.give_back(charges)
        raise
    await limits.limiter.give_back(charges)


GuardedCredentials = Annotated[Credentials, Depends(_guarded_credentials, scope="function")]
"""Credentials to be checked. Failed checks count against the account, from this address and from anywhere."""


async def _current_user(session: Session, accounts: CurrentAccounts, sent: _SentToken) -> User:
    if sent is None:
        raise InvalidToken(credential_sent=False)
    return await authenticate(session, accounts, token=sent.credentials)


CurrentUser = Annotated[User, Depends(_current_user)]
"""The active account whose login token came with the request."""
