"""The account: its password, and the end of all its sessions."""

from contextlib import AbstractAsyncContextManager
from typing import Annotated

from fastapi import Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import LoggedInSession, form
from app.console.forms import UNSENT, EmptyForm, FormState
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.features.auth import service, sessions
from app.features.auth.dependencies import CurrentAccounts, SignInAttempt, limited_password_check
from app.features.auth.schemas import PasswordChange
from app.features.dependencies import Session
from app.web.query import query_value

page = Page("/account", template="account.html", label="Account")


async def _render(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    changed = query_value(session.request, "changed") is not None and form_state.error is None
    notice = "The password is changed, and every other login has ended." if changed else None
    return session.render(page.template, form=form_state, user=session.user, notice=notice)


def _limits(session: ConsoleSession) -> AbstractAsyncContextManager[None]:
    return limited_password_check(SignInAttempt.of(session.request), email=session.user.email)


GuardedChange = Annotated[PasswordChange, form(PasswordChange, _render, limits=_limits)]
"""A change whose current password is checked within the limits of a log-in."""


@page.router.get(page.path)
async def show_account(session: LoggedInSession) -> HTMLResponse:
    """Show the account, and the forms that change it."""
    return await _render(session, UNSENT)


@page.router.post(f"{page.path}/password")
async def change_password(session: LoggedInSession, accounts: CurrentAccounts, change: GuardedChange) -> Response:
    """Change the password, end every other login, and go on with a new session."""
    opened = await sessions.change_password(
        accounts, user=session.user, current_password=change.current_password, new_password=change.new_password
    )
    return session.start_browser_session(opened, redirect_to=f"{page.path}?changed")


@page.router.post(f"{page.path}/log-out-everywhere")
async def log_out_everywhere(
    _sent: Annotated[EmptyForm, form(EmptyForm, _render)], session: LoggedInSession, database: Session
) -> Response:
    """End every login of the account, this one too."""
    await service.end_all_sessions(database, user_id=session.user.id)
    return session.end_browser_session(redirect_to="/log-in")
