"""The account: its password, and its sessions."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.console.drafts import Draft, Nothing, form
from app.console.site import Page
from app.console.visits import Owner, Visitor, farewell, welcome
from app.core.db import Session
from app.features.auth import service, sessions
from app.features.auth.dependencies import (
    CallersOrigin,
    CurrentAccounts,
    CurrentLimits,
    count_failed_login,
    limit_logins,
)
from app.features.auth.schemas import PasswordChange

router = APIRouter(include_in_schema=False)


async def account_page(visitor: Visitor, draft: Draft) -> Page:
    _ = visitor.account
    changed = "changed" in visitor.request.query_params
    notice = "The password is changed, and every other login has ended." if changed and draft.error is None else None
    return visitor.page("account.html", draft=draft, notice=notice)


async def _guarded_change(
    request: Request,
    limits: CurrentLimits,
    origin: CallersOrigin,
    sent: Annotated[PasswordChange, form(PasswordChange, again=account_page)],
    visitor: Owner,
) -> AsyncIterator[PasswordChange]:
    await limit_logins(request, limits, origin)
    async with count_failed_login(request, limits, origin, email=visitor.account.email):
        yield sent


GuardedChange = Annotated[PasswordChange, Depends(_guarded_change, scope="function")]
"""A change whose current password is checked within the limits of a log-in."""


@router.get("/account")
async def show_account(visitor: Owner) -> Page:
    """The account, and the forms that change it."""
    return await account_page(visitor, Draft())


@router.post("/account/password")
async def change_password(
    request: Request,
    change: GuardedChange,
    visitor: Owner,
    accounts: CurrentAccounts,
) -> Response:
    """Changes the password, ends every other login, and goes on with a new session."""
    session = await sessions.change_password(
        accounts, user=visitor.account, current_password=change.current_password, new_password=change.new_password
    )
    return welcome(request, session, to="account?changed")


@router.post("/account/log-out-everywhere")
async def log_out_everywhere(
    request: Request, _sent: Annotated[Nothing, form(Nothing, again=account_page)], visitor: Owner, session: Session
) -> Response:
    """Ends every login of the account, this one too."""
    await service.end_all_sessions(session, user_id=visitor.account.id)
    return farewell(request, to="/log-in")
