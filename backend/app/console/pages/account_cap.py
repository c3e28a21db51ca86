"""The cap of the account: set and removed."""

from typing import Annotated

from fastapi import Response
from fastapi.responses import HTMLResponse

from app.billing import caps
from app.billing.subscriptions import given
from app.catalogue.prices import AmountText, format_amount, read_amount
from app.console.dependencies import BillingSession, form
from app.console.forms import UNSENT, EmptyForm, FormState
from app.console.pages import billing
from app.console.rendering import Page
from app.console.session import ConsoleSession, redirect
from app.core.schemas import Body
from app.features.billing.service import find_subscription
from app.features.dependencies import Session

page = Page(f"{billing.page.path}/cap", template="account_cap.html")


class CapForm(Body):
    """A cap to be set."""

    amount: AmountText


async def _render(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    async with session.transaction() as database:
        await session.load_balance(database)
        plan_cap = given(await find_subscription(database, account_id=session.user.account_id)).cap
    cap = session.balance.cap
    if form_state is UNSENT and cap is not None:
        form_state = FormState({"amount": format_amount(cap)})
    return session.render(page.template, form=form_state, balance=session.balance, plan_cap=plan_cap)


@page.router.get(page.path)
async def show_account_cap(session: BillingSession) -> HTMLResponse:
    """Show the account's cap, and the forms that set and remove it."""
    return await _render(session, UNSENT)


@page.router.post(page.path)
async def set_account_cap(
    new: Annotated[CapForm, form(CapForm, _render)], session: BillingSession, database: Session
) -> Response:
    """Set the most that the account may spend in each of its periods."""
    await caps.set_own_cap(database, account_id=session.user.account_id, amount=read_amount(new.amount))
    return redirect(billing.page.path)


@page.router.post(f"{page.path}/remove")
async def remove_account_cap(
    _sent: Annotated[EmptyForm, form(EmptyForm, _render)], session: BillingSession, database: Session
) -> Response:
    """Remove the account's own cap."""
    await caps.set_own_cap(database, account_id=session.user.account_id, amount=None)
    return redirect(billing.page.path)
