"""The cap of a key: set and removed."""

from typing import Annotated

from fastapi import Response
from fastapi.responses import HTMLResponse

from app.billing.caps import KeyCapPeriod
from app.catalogue.prices import format_amount, read_amount
from app.console.dependencies import BillingSession, form
from app.console.forms import UNSENT, EmptyForm, FormState
from app.console.pages import keys
from app.console.pages.account_cap import CapForm
from app.console.rendering import Page
from app.console.session import ConsoleSession, redirect
from app.features.dependencies import Session
from app.features.keys import service

page = Page(f"{keys.page.path}/{{key_id}}/cap", template="key_cap.html")


class KeyCapForm(CapForm):
    """A cap to be set, and the period in which it counts."""

    period: KeyCapPeriod


async def _render(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    key_id: str = session.request.path_params["key_id"]
    async with session.transaction() as database:
        key = await service.find_one(database, account_id=session.user.account_id, key_id=key_id)
    cap = keys.caps_of(session, [key])[key.id]
    if form_state is UNSENT and cap is not None:
        form_state = FormState({"amount": format_amount(cap.amount), "period": cap.period})
    return session.render(page.template, form=form_state, key=key, cap=cap)


@page.router.get(page.path)
async def show_key_cap(session: BillingSession) -> HTMLResponse:
    """Show the key's cap, and the forms that set and remove it."""
    return await _render(session, UNSENT)


@page.router.post(page.path)
async def set_key_cap(
    key_id: str, new: Annotated[KeyCapForm, form(KeyCapForm, _render)], session: BillingSession, database: Session
) -> Response:
    """Set the most that may be spent with the key in each day, month or its whole life."""
    amount = read_amount(new.amount)
    await service.set_cap(database, account_id=session.user.account_id, key_id=key_id, amount=amount, period=new.period)
    return redirect(keys.page.path)


@page.router.post(f"{page.path}/remove")
async def remove_key_cap(
    key_id: str,
    _sent: Annotated[EmptyForm, form(EmptyForm, _render)],
    session: BillingSession,
    database: Session,
) -> Response:
    """Remove the key's cap."""
    await service.set_cap(database, account_id=session.user.account_id, key_id=key_id, amount=None, period="total")
    return redirect(keys.page.path)
