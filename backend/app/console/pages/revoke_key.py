"""Revoke a key: asks the user to confirm it first."""

from typing import Annotated

from fastapi import Response
from fastapi.responses import HTMLResponse

from app.console.dependencies import LoggedInSession, form
from app.console.forms import UNSENT, EmptyForm, FormState
from app.console.pages import keys
from app.console.rendering import Page
from app.console.session import ConsoleSession, redirect
from app.features.dependencies import CurrentGenerations
from app.features.keys import service

page = Page(f"{keys.page.path}/{{key_id}}/revoke", template="revoke_key.html")


async def _render(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    key_id: str = session.request.path_params["key_id"]
    async with session.transaction() as database:
        key = await service.find_one(database, account_id=session.user.account_id, key_id=key_id)
    return session.render(page.template, form=form_state, key=key)


@page.router.get(page.path)
async def show_revoke_key(session: LoggedInSession) -> HTMLResponse:
    """Ask the user to confirm that the key is to be revoked."""
    return await _render(session, UNSENT)


@page.router.post(page.path)
async def revoke_key(
    key_id: str,
    _sent: Annotated[EmptyForm, form(EmptyForm, _render)],
    session: LoggedInSession,
    generations: CurrentGenerations,
) -> Response:
    """Revoke the key. Every request that starts afterwards is refused, and what waited under it is cancelled."""
    await service.revoke_for_owner(generations, account_id=session.user.account_id, key_id=key_id)
    return redirect(keys.page.path)
