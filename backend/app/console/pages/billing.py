"""Billing: what the account may spend, its plan, its caps, and what can be bought."""

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
        subscription = await service.find_subscription(database, account_id=account_id)
    return session.render(
        page.template,
        form=form_state,
        balance=session.balance,
        notices=await find_notices(session),
        keys=own_keys,
        caps=keys.caps_of(session, own_keys),
        subscription=subscription,
        plans=catalogue.plans,
        top_ups=catalogue.top_ups if services.stripe else None,
        sells=services.stripe is not None,
    )


@page.router.get(page.path)
async def show_billing(session: BillingSession) -> HTMLResponse:
    """Show what the account may spend and has spent, and the forms that change it."""
    return await render_billing(session, UNSENT)
