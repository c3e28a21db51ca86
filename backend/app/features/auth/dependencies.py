"""What accounts offer to routes: the user who is logged in, and the limits on sign-ups and password checks."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core.errors import InternalError, as_api_error
from app.core.security import looks_like_api_key
from app.features.auth.schemas import Credentials, SignUp
from app.features.auth.service import Accounts, InvalidCredentials, InvalidToken, WrongPassword, authenticate
from app.features.dependencies import Session, services_of
from app.features.rate_limits import raise_if_refused, set_rate_limit_headers
from app.models import User
from app.ratelimit import Take, TakeResult
from app.ratelimit.policies import OriginPolicy
from app.services import Services
from app.web.body import json_body
from app.web.client_address import Origin, origin_of
from app.web.disconnect import cancelled_on_disconnect
from app.web.state import request_state

_bearer = HTTPBearer(
    scheme_name="Login token",
    bearerFormat="JWT",
    description="The `access_token` that `POST /v1/auth/login` answers.",
    auto_error=False,
)


_WITHOUT_LOGIN = "No login token: send the access_token of POST /v1/auth/login as Authorization: Bearer eyJ..."
_WITH_API_KEY = "This is an API key; this call needs the access_token of POST /v1/auth/login"

_GROUP = "sign-in"  # the limiter's group for everything that is decided before the caller is known


def _accounts(request: Request) -> Accounts:
    return Accounts.of(
        services_of(request),
        cancelled_on_disconnect=partial(cancelled_on_disconnect, request),
        network=origin_of(request).network,
    )


CurrentAccounts = Annotated[Accounts, Depends(_accounts)]
SentToken = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


@dataclass(frozen=True)
class SignInAttempt:
    """A request that signs up or has a password checked: the limits that it takes from, and where it comes from.

    The API and the console guard their routes with the functions below, and so take from the same limits.
    """

    request: Request
    services: Services
    origin: Origin

    @classmethod
    def of(cls, request: Request) -> "SignInAttempt":
        return cls(request, services_of(request), origin_of(request))


async def _attempt(request: Request) -> SignInAttempt:
    return SignInAttempt.of(request)


CurrentAttempt = Annotated[SignInAttempt, Depends(_attempt)]


async def limit_sign_ups(attempt: CurrentAttempt) -> None:
    """Raises RateLimited when this address, its network or everybody together has signed up too often."""
    takes = _takes_of_origin(attempt, attempt.services.policies.register)
    _answer_with(attempt, await attempt.services.limiter.take(takes, group=_GROUP))


async def limit_logins(attempt: CurrentAttempt) -> AsyncIterator[None]:
    """Around a login or a change of password. It counts against the address, its network and everybody together unless
    it succeeds, or fails on the side of the service.

    Raises RateLimited when too many counted, and Unavailable while so many of this address run that they might.
    """
    takes = _takes_of_origin(attempt, attempt.services.policies.login)
    reserved = attempt.services.logins.reserved(takes, group=_GROUP, subject=f"login-ip {attempt.origin.host}")
    async with reserved as reservation:
        _answer_with(attempt, reservation.result)
        reservation.counts = True
        try:
            yield
        except Exception as error:
            reservation.counts = as_api_error(error).status < InternalError.status
            raise
        reservation.counts = False


def _takes_of_origin(attempt: SignInAttempt, policy: OriginPolicy) -> Sequence[Take]:
    return [
        Take(f"{policy.name}-ip", attempt.origin.host, policy.per_ip),
        Take(f"{policy.name}-network", attempt.origin.network, policy.per_network),
        Take(f"{policy.name}-global", "everybody", policy.everywhere),
    ]


def _answer_with(attempt: SignInAttempt, taken: TakeResult) -> None:
    # Only the limit of the caller's own address is in the headers: the others would show how busy other callers are.
    set_rate_limit_headers(attempt.request, taken.decisions[:1])
    raise_if_refused(attempt.request, taken)


async def limit_sign_ups_of(attempt: SignInAttempt, *, email: str) -> None:
    """Raises RateLimited when this canonical email has been signed up with too often."""
    take = Take("register-account", email, attempt.services.policies.register_per_account)
    raise_if_refused(attempt.request, await attempt.services.limiter.take([take], group=_GROUP))


@asynccontextmanager
async def count_failed_login(attempt: SignInAttempt, *, email: str) -> AsyncIterator[None]:
    """Around the check of a password of the account with this canonical email, whether there is one or not. A wrong
    password counts against the account, from this address, from its network and from all addresses together.

    Raises RateLimited when too many were wrong, and Unavailable while so many are checked that they might be.
    """
    policies = attempt.services.policies
    takes = [
        Take("login-account", f"{attempt.origin.host} {email}", policies.login_per_account),
        Take("login-account-network", f"{attempt.origin.network} {email}", policies.login_per_account_and_network),
        Take("login-account-anywhere", email, policies.login_per_account_anywhere),
    ]
    reserved = attempt.services.logins.reserved(takes, group=_GROUP, subject=f"login-account {email}")
    async with reserved as reservation:
        raise_if_refused(attempt.request, reservation.result)
        try:
            yield
        except (InvalidCredentials, WrongPassword) as error:
            reservation.counts = True
            if isinstance(error, InvalidCredentials) and error.account_id:
                request_state(attempt.request.scope)["account"] = error.account_id
            raise


limited_logins_of_origin = asynccontextmanager(limit_logins)
"""`limit_logins` for an `async with`."""


@asynccontextmanager
async def limited_password_check(attempt: SignInAttempt, *, email: str) -> AsyncIterator[None]:
    """All limits on the check of a password: those of `limit_logins`, then those of `count_failed_login`."""
    async with limited_logins_of_origin(attempt), count_failed_login(attempt, email=email):
        yield


async def _new_credentials(attempt: CurrentAttempt, sent: Annotated[SignUp, json_body(SignUp)]) -> SignUp:
    await limit_sign_ups_of(attempt, email=sent.email)
    return sent


NewCredentials = Annotated[SignUp, Depends(_new_credentials)]
"""Credentials to sign up with. Their email is counted whether or not they are accepted."""


async def _guarded_credentials(
    attempt: CurrentAttempt, credentials: Annotated[Credentials, json_body(Credentials)]
) -> AsyncIterator[Credentials]:
    async with count_failed_login(attempt, email=credentials.email):
        yield credentials


GuardedCredentials = Annotated[Credentials, Depends(_guarded_credentials, scope="function")]
"""Credentials to be checked. A wrong one counts against the account, from this address, its network and anywhere."""


async def current_user(request: Request, session: Session, accounts: CurrentAccounts, sent: SentToken) -> User:
    """The active account of a login token. Raises InvalidToken."""
    if sent is None:
        raise InvalidToken(_WITHOUT_LOGIN, credential_sent=False)
    if looks_like_api_key(sent.credentials):
        raise InvalidToken(_WITH_API_KEY)
    user = await authenticate(session, accounts, token=sent.credentials)
    request_state(request.scope)["account"] = user.account_id
    return user


CurrentUser = Annotated[User, Depends(current_user)]
"""The active account of the request's login token."""


async def _waiting_user(request: Request, accounts: CurrentAccounts, sent: SentToken) -> User:
    async with accounts.sessions.begin() as session:
        return await current_user(request, session, accounts, sent)


WaitingUser = Annotated[User, Depends(_waiting_user)]
"""CurrentUser, for a route that may wait: it holds no connection of the database."""


async def _guarded_user(attempt: CurrentAttempt, user: WaitingUser) -> AsyncIterator[User]:
    # Without a connection of the pool: hashing the password takes long.
    async with limited_password_check(attempt, email=user.email):
        yield user


GuardedUser = Annotated[User, Depends(_guarded_user, scope="function")]
"""CurrentUser, whose password is to be checked again, within the limits of a login; a wrong one is a failed login."""
