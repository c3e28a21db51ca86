"""Billing: what the account may spend, its plan, its caps, and what can be bought."""

import re
from datetime import UTC, datetime

from fastapi import Request
from fastapi.responses import HTMLResponse

from app.console.dependencies import BillingSession
from app.console.forms import UNSENT, FormState
from app.console.notices import find_notices
from app.console.pages import keys
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.features.billing import service
from app.features.dependencies import services_of
from app.features.keys.service import find_all
from app.web.pagination import PAGE_SIZE_MAX
from app.web.query import query_value

_SECONDS = re.compile(r"\d{1,10}", re.ASCII)

page = Page("/billing", template="billing.html", label="Billing", is_of_billing=True)


async def render_billing(session: ConsoleSession, form_state: FormState) -> HTMLResponse:
    """The page, with the account's money as it is now."""
    services, account_id = services_of(session.request), session.user.account_id
    catalogue = services.generations.catalogue.catalogue
    async with session.transaction() as database:
        await session.load_balance(database)
        own_keys = await find_all(
            database, account_id=account_id, include_revoked=False, after=None, limit=PAGE_SIZE_MAX
        )
        live_keys = [each for each in own_keys if each.environment == "live"]
        subscription = await service.find_subscription(database, account_id=account_id)
        paid_since = _paid_since(session.request)
        has_arrived = paid_since and await service.has_arrived(database, account_id=account_id, since=paid_since)
    return session.render(
        page.template,
        form=form_state,
        has_arrived=has_arrived,
        balance=session.balance,
        notices=await find_notices(session),
        keys=live_keys,
        caps=keys.caps_of(session, live_keys),
        subscription=subscription,
        plans=catalogue.plans,
        top_ups=catalogue.top_ups,
        takes_payments=services.purchases is not None,
    )


def _paid_since(request: Request) -> datetime | None:
    """When the checkout was opened that Stripe has led back from; None on any other way to the page."""
    seconds = query_value(request, "paid_since") or ""
    return datetime.fromtimestamp(int(seconds), UTC) if _SECONDS.fullmatch(seconds) else None


@page.router.get(page.path)
async def show_billing(session: BillingSession) -> HTMLResponse:
    """Show what the account may spend and has spent, and the forms that change it."""
    return await render_billing(session, UNSENT)
