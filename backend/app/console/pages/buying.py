"""What is bought at Stripe: credit and plans; and Stripe's own page about payments."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import Response
from fastapi.responses import HTMLResponse

from app.billing import checkouts
from app.console.dependencies import BillingSession, form
from app.console.forms import EmptyForm
from app.console.pages.billing import page as billing
from app.console.pages.billing import render_billing
from app.console.rendering import Page
from app.console.session import ConsoleSession, redirect
from app.features.billing.checkout import CurrentPurchases, ReturnUrls
from app.features.billing.checkout_schemas import PlanChoice, TopUpCreate
from app.features.billing.dependencies import limit_checkouts
from app.features.dependencies import CurrentServices

page = Page(f"{billing.path}/stripe", template="to_stripe.html")


@asynccontextmanager
async def _limits(session: ConsoleSession) -> AsyncIterator[None]:
    if session.is_logged_in:  # the form of a session that has ended is read, so that its page can say so
        await limit_checkouts(session.request, account_id=session.user.account_id)
    yield


_form = partial(form, rerender=render_billing, limits=_limits)
SentButton = Annotated[EmptyForm, _form(EmptyForm)]
"""A button that has Stripe asked, within the account's limit."""


def _to_stripe(session: ConsoleSession, url: str) -> HTMLResponse:
    """A page that leads the browser on to a page at Stripe. No redirect: the policy of the pages allows forms to end
    on this site alone, and a browser holds redirects against it too.
    """
    response = session.render(page.template, url=url)
    response.headers["Refresh"] = f"0;url={url}"
    return response


@page.router.post(f"{billing.path}/top-ups")
async def create_top_up(
    new: Annotated[TopUpCreate, _form(TopUpCreate)],
    session: BillingSession,
    purchases: CurrentPurchases,
    urls: ReturnUrls,
) -> HTMLResponse:
    """Open a page at Stripe that pays for credit."""
    checkout = await checkouts.open_top_up(purchases, user=session.user, amount=new.millionths, urls=urls)
    return _to_stripe(session, checkout.url)


@page.router.post(f"{billing.path}/plan")
async def choose_plan(
    choice: Annotated[PlanChoice, _form(PlanChoice)],
    session: BillingSession,
    purchases: CurrentPurchases,
    urls: ReturnUrls,
    services: CurrentServices,
) -> Response:
    """Open a page at Stripe that pays for a plan, or change the plan that is paid for already."""
    checkout = await checkouts.choose_plan(purchases, user=session.user, name=choice.plan, urls=urls, now=services.now)
    return _to_stripe(session, checkout.url) if checkout else redirect(billing.path)


@page.router.post(f"{billing.path}/plan/cancel")
async def end_plan(_sent: SentButton, session: BillingSession, purchases: CurrentPurchases) -> Response:
    """Have the plan end with the month that is paid."""
    await checkouts.end_plan(purchases, account_id=session.user.account_id)
    return redirect(billing.path)


@page.router.post(f"{billing.path}/portal")
async def open_portal(
    _sent: SentButton, session: BillingSession, purchases: CurrentPurchases, urls: ReturnUrls
) -> HTMLResponse:
    """Open Stripe's page with the account's invoices and payment methods."""
    return _to_stripe(session, await checkouts.open_portal(purchases, user=session.user, return_url=urls.page))
