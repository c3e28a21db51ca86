"""A month of the account explained: credit, charges by day, model and key, and invoices; and the same as a CSV file."""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from app.billing import checkouts
from app.billing.customers import find_customer
from app.billing.months import find_report, find_uses
from app.billing.periods import Period, period_of_account
from app.catalogue.prices import format_amount
from app.console.csv_lines import csv_lines
from app.console.dependencies import BillingSession
from app.console.pages import billing
from app.console.rendering import Page
from app.console.session import ConsoleSession
from app.core.errors import NotFound, RateLimited
from app.features.billing.dependencies import limit_checkouts
from app.features.dependencies import services_of
from app.payments import Invoice, StripeRefused, StripeUnavailable

page = Page(f"{billing.page.path}/months/{{month}}", template="billing_month.html")

_MONTH = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])", re.ASCII)
_DAY = timedelta(days=1)


def _period(month: str, session: BillingSession) -> Period:
    """The account's period that begins in the calendar month. Raises NotFound for what is no month."""
    match = _MONTH.fullmatch(month)
    if match is None:
        raise NotFound
    anchor = _anchor(session)
    return period_of_account(datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC) + anchor, anchor=anchor)


CurrentPeriod = Annotated[Period, Depends(_period)]


def _anchor(session: ConsoleSession) -> timedelta:
    """How long after the begin of a month the account's periods begin."""
    return timedelta(days=session.balance.period_start.astimezone(UTC).day - 1)


@page.router.get(f"{billing.page.path}/months/{{month}}.csv")
async def download_month(session: BillingSession, period: CurrentPeriod) -> Response:
    """Download what was charged, with a line for each day, key and model."""
    name = f"charges-{period.start:%Y-%m-%d}-{period.end - _DAY:%Y-%m-%d}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_lines(session, period), media_type="text/csv; charset=utf-8", headers=headers)


@page.router.get(page.path)
async def show_month(session: BillingSession, period: CurrentPeriod) -> HTMLResponse:
    """Show what has changed the account's credit in a period, and what it was charged for."""
    async with session.transaction() as database:
        report = await find_report(database, account_id=session.user.account_id, period=period)
    month, invoices = period.start - _anchor(session), await _find_invoices(session)
    return session.render(
        page.template,
        report=report,
        last_day=period.end - _DAY,
        invoices=invoices and [each for each in invoices if _belongs_to(each, period)],
        is_current=period.start == session.balance.period_start,
        earlier=month - _DAY if period.start > session.user.created_at else None,
        month=month,
        later=month + _DAY * 32 if period.end <= session.balance.period_start else None,
    )


async def _find_invoices(session: ConsoleSession) -> Sequence[Invoice] | None:
    """The account's; None where Stripe does not say."""
    purchases, account_id = services_of(session.request).purchases, session.user.account_id
    if purchases is None or await find_customer(purchases, account_id) is None:
        return ()
    try:
        await limit_checkouts(session.request, account_id=account_id)
        return await checkouts.find_invoices(purchases, account_id=account_id)
    except (RateLimited, StripeUnavailable, StripeRefused):
        return None


def _belongs_to(invoice: Invoice, period: Period) -> bool:
    """Whether an invoice is of this period, or bills what was delivered in it."""
    is_of = period.start <= invoice.created_at < period.end
    return is_of or (invoice.period_start < period.end and invoice.period_end > period.start)


async def _lines(session: ConsoleSession, period: Period) -> AsyncIterator[str]:
    yield csv_lines([("date", "key_id", "key_name", "model", "images", "amount", "currency")])
    account_id, day = session.user.account_id, period.start
    while day < period.end:
        async with session.transaction() as database:
            uses = await find_uses(database, account_id=account_id, first=day, end=day + _DAY)
        yield csv_lines(
            (day.date(), use.key_id, use.key_name, use.model, use.images, format_amount(use.amount), session.currency)
            for use in uses
        )
        day += _DAY
