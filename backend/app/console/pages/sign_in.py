"""Sign up, log in, log out."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.console.drafts import Draft, Nothing, form
from app.console.site import Page
from app.console.visits import CurrentVisitor, Destination, Visitor, destination, farewell, welcome
from app.features.auth import sessions
from app.features.auth.dependencies import (
    CallersOrigin,
    CurrentAccounts,
    CurrentLimits,
    count_failed_login,
    limit_logins,
    limit_sign_ups,
    limit_sign_ups_of,
)
from app.features.auth.schemas import Credentials

router = APIRouter(include_in_schema=False)


async def sign_up_page(visitor: Visitor, draft: Draft) -> Page:
    return visitor.page("sign_up.html", draft=draft)


async def log_in_page(visitor: Visitor, draft: Draft) -> Page:
    return visitor.page("log_in.html", draft=draft, to=destination(visitor.request))


async def log_out_page(visitor: Visitor, draft: Draft) -> Page:
    return visitor.page("log_out.html", draft=draft)


async def _new_credentials(
    request: Request,
    limits: CurrentLimits,
    origin: CallersOrigin,
    sent: Annotated[Credentials, form(Credentials, again=sign_up_page)],
) -> Credentials:
    await limit_sign_ups(request, limits, origin)
    await limit_sign_ups_of(request, limits, email=sent.email)
    return sent


async def _guarded_credentials(
    request: Request,
    limits: CurrentLimits,
    origin: CallersOrigin,
    sent: Annotated[Credentials, form(Credentials, again=log_in_page)],
) -> AsyncIterator[Credentials]:
    await limit_logins(request, limits, origin)
    async with count_failed_login(request, limits, origin, email=sent.email):
        yield sent


NewCredentials = Annotated[Credentials, Depends(_new_credentials)]
GuardedCredentials = Annotated[Credentials, Depends(_guarded_credentials, scope="function")]
"""As the API's, from a form. Both take from the same limits; here they are asked once there is a form to show again."""


@router.get("/sign-up")
async def show_sign_up(visitor: CurrentVisitor) -> Page:
    """The form for a new account."""
    return await sign_up_page(visitor, Draft())


@router.post("/sign-up")
async def sign_up(
    request: Request,
    accounts: CurrentAccounts,
    new: NewCredentials,
) -> Response:
    """Makes the account and logs it in."""
    return welcome(request, await sessions.sign_up(accounts, email=new.email, password=new.password), to="playground")


@router.get("/log-in")
async def show_log_in(visitor: CurrentVisitor) -> Page:
    """The form to log in with."""
    return await log_in_page(visitor, Draft())


@router.post("/log-in")
async def log_in(
    request: Request,
    visitor: CurrentVisitor,
    accounts: CurrentAccounts,
    to: Destination,
    sent: GuardedCredentials,
) -> Response:
    """Logs in with a session of its own, and ends the one that was there."""
    session = await sessions.open_session(accounts, email=sent.email, password=sent.password)
    await visitor.leave()
    return welcome(request, session, to=to)


@router.post("/log-out")
async def log_out(
    request: Request, visitor: CurrentVisitor, _sent: Annotated[Nothing, form(Nothing, again=log_out_page)]
) -> Response:
    """Ends the session on the server and forgets its cookie."""
    await visitor.leave()
    return farewell(request, to="/")
