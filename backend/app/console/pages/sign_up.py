"""Sign up: a new account, logged in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import CurrentSession, form
from app.console.forms import FormState
from app.console.pages import playground
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.console.state import console_of
from app.features.auth import sessions
from app.features.auth.dependencies import (
    CurrentAccounts,
    CurrentAttempt,
    SignInAttempt,
    limit_sign_ups,
    limit_sign_ups_of,
)
from app.features.auth.invitations import RegistrationClosed
from app.features.auth.schemas import SignUp
from app.web.query import query_value

page = Page("/sign-up", template="sign_up.html")


async def _render(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    if console_of(session.request).registration == "closed":
        raise RegistrationClosed
    return session.render(page.template, form=form_state)


@asynccontextmanager
async def _limits(session: ConsoleSession) -> AsyncIterator[None]:
    await limit_sign_ups(SignInAttempt.of(session.request))
    yield


async def _new_credentials(
    attempt: CurrentAttempt, sent: Annotated[SignUp, form(SignUp, _render, limits=_limits)]
) -> SignUp:
    await limit_sign_ups_of(attempt, email=sent.email)
    return sent


NewCredentials = Annotated[SignUp, Depends(_new_credentials)]
"""As the API's."""


@page.router.get(page.path)
async def show_sign_up(request: Request, session: CurrentSession) -> HTMLResponse:
    """Show the form for a new account, with the invitation of the link that led here."""
    invitation = query_value(request, "invitation")
    response = await _render(session, FormState({"invitation": invitation or ""}))
    if invitation:
        response.headers["Referrer-Policy"] = "strict-origin"  # requests that the page makes do not repeat its address
    return response


@page.router.post(page.path)
async def sign_up(session: CurrentSession, accounts: CurrentAccounts, new: NewCredentials) -> Response:
    """Create the account, and log the browser in."""
    opened = await sessions.sign_up(accounts, email=new.email, password=new.password, invitation=new.invitation)
    return session.start_browser_session(opened, redirect_to=playground.page.path)
