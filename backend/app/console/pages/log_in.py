"""Log in."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated

from fastapi import Depends, Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import CurrentSession, NextPage, find_next_page, form
from app.console.forms import UNSENT, FormState
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.features.auth import sessions
from app.features.auth.dependencies import (
    CurrentAccounts,
    CurrentAttempt,
    SignInAttempt,
    count_failed_login,
    limited_logins_of_origin,
)
from app.features.auth.schemas import Credentials

page = Page("/log-in", template="log_in.html")


async def _render(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    return session.render(page.template, form=form_state, next_page=find_next_page(session.request))


def _limits(session: ConsoleSession) -> AbstractAsyncContextManager[None]:
    return limited_logins_of_origin(SignInAttempt.of(session.request))


async def _guarded_credentials(
    attempt: CurrentAttempt, sent: Annotated[Credentials, form(Credentials, _render, limits=_limits)]
) -> AsyncIterator[Credentials]:
    async with count_failed_login(attempt, email=sent.email):
        yield sent


GuardedCredentials = Annotated[Credentials, Depends(_guarded_credentials, scope="function")]
"""As the API's."""


@page.router.get(page.path)
async def show_log_in(session: CurrentSession) -> HTMLResponse:
    """Show the form to log in with."""
    return await _render(session, UNSENT)


@page.router.post(page.path)
async def log_in(
    session: CurrentSession, accounts: CurrentAccounts, next_page: NextPage, sent: GuardedCredentials
) -> Response:
    """Log the browser in with a new session, and end the session that it had."""
    opened = await sessions.open_session(accounts, email=sent.email, password=sent.password)
    await session.end()
    return session.start_browser_session(opened, redirect_to=next_page.path)
