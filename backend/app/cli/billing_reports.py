"""`nanobanana billing reconcile` and `revenue`: whether money and what it was charged for agree, and what remains."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import get_args

import click

from app.billing import reconcile as comparison
from app.billing.reconcile import BilledHour, Difference
from app.billing.revenue import Revenue, RevenueBy, find_revenue
from app.catalogue.prices import format_amount
from app.cli.accounts import OWNER, find_account
from app.cli.database import run_on_database
from app.cli.days import DAY
from app.cli.errors import errors_as_sentences
from app.cli.output import Form, Row, as_csv_or_json, print_rows
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from app.features.usage.report import find_currency
from app.generations import reconcile as of_usage
from app.payments import NotSynced, StripeRefused, StripeUnavailable
from app.payments.opened import open_stripe

_AMOUNT_WIDTH, _ACCOUNTS_AT_A_TIME = 14, 100
_PAID_BY = ("from_allowance", "from_credit", "billed")


@click.command()
@click.option("--from", "first", type=DAY, help="The first day, in UTC; by default the first there is.")
@click.option("--to", "last", type=DAY, help="The last day, in UTC; by default the last there is.")
@click.option("--account", "owner", metavar=OWNER, help="Of this account alone.")
@click.option("--stripe", "asks_stripe", is_flag=True, help="Ask Stripe what its meter has counted, hour by hour.")
def reconcile(first: datetime | None, last: datetime | None, owner: str | None, asks_stripe: bool) -> None:
    """Prove that money agrees: balances with entries, charges and holds, and day by day charges with usage, with the
    prices of what was delivered, and with what Stripe was told.

    It only reads, in short statements, and holds nothing up. Ends with 1, and says where, if there is a difference.
    """
    with errors_as_sentences():
        if asks_stripe:
            asyncio.run(_compare_with_stripe(()))  # without a key no hour could differ
        accounts = [find_account(owner).account_id] if owner else None
        days = [day for day in _find_days() if _is_between(day, first, last)]
        found = _Differences()
        widths = dict.fromkeys(("day", *comparison.DayTotals._fields), _AMOUNT_WIDTH)
        print_rows(_compared(days, accounts, found, asks_stripe=asks_stripe), widths, form="table")
        for page in [accounts] if accounts else _pages_of_accounts():
            found.print(run_on_database(partial(comparison.compare_balances, accounts=page)))
        click.echo(f"{len(days)} days compared, {found.number} differences.")
        if kept_from := run_on_database(of_usage.find_kept_from):
            click.echo(f"Generations of days before {kept_from} are not compared: they may have been dropped.")
        sys.exit(1 if found.number else 0)


class _Differences:
    """Prints differences, and counts them."""

    def __init__(self) -> None:
        self.number = 0

    def print(self, found: Sequence[Difference]) -> None:
        for each in found:
            click.echo(str(each))
        self.number += len(found)


def _compared(
    days: Sequence[date], accounts: Sequence[str] | None, found: _Differences, *, asks_stripe: bool
) -> Iterator[Row]:
    """A row for each day. Its differences are printed once the row is."""
    for day in days:
        totals = run_on_database(partial(comparison.sum_day, day=day, accounts=accounts))
        amounts = {name: format_amount(amount) for name, amount in totals._asdict().items()}
        yield {"day": day, **amounts}
        found.print(run_on_database(partial(comparison.compare_day, day=day, accounts=accounts)))
        if asks_stripe:
            for page in _pages_of_hours(day, accounts):
                found.print(asyncio.run(_compare_with_stripe(page)))


def _find_days() -> Sequence[date]:
    """Every UTC day from the first to the last of which there is something to compare."""
    ends = [
        day for days in (run_on_database(comparison.find_days), run_on_database(of_usage.find_days)) for day in days
    ]
    return [min(ends) + timedelta(days=n) for n in range((max(ends) - min(ends)).days + 1)] if ends else []


def _is_between(day: date, first: datetime | None, last: datetime | None) -> bool:
    return (first is None or first.date() <= day) and (last is None or day <= last.date())


def _pages_of_accounts() -> Iterator[Sequence[str]]:
    after = ""
    while ids := run_on_database(partial(comparison.find_accounts, after=after, limit=_ACCOUNTS_AT_A_TIME)):
        yield ids
        after = ids[-1]


def _pages_of_hours(day: date, accounts: Sequence[str] | None) -> Iterator[Sequence[BilledHour]]:
    after = None
    while hours := run_on_database(partial(comparison.find_billed, day=day, accounts=accounts, after=after)):
        yield hours
        after = hours[-1]


async def _compare_with_stripe(hours: Sequence[BilledHour]) -> Sequence[Difference]:
    """Raises ConfigurationError where Stripe is not set up, or cannot be asked."""
    async with open_stripe(load_settings()) as stripe:
        if stripe is None:
            raise ConfigurationError("STRIPE_SECRET_KEY is not set.")
        try:
            counted = [await stripe.meter_total(each.customer_id, each.hour) for each in hours]
        except (StripeUnavailable, StripeRefused, NotSynced) as error:
            raise ConfigurationError(f"Stripe was not asked: {error}") from None
    compared = (comparison.compare_hour(hour, total) for hour, total in zip(hours, counted, strict=True))
    return [each for each in compared if each is not None]


@click.command()
@click.option("--by", type=click.Choice(get_args(RevenueBy)), default="day", help="A line for each; day by default.")
@click.option("--from", "first", type=DAY, help="The first day, in UTC; by default the first of this month.")
@click.option("--to", "last", type=DAY, help="The last day, in UTC; by default today.")
@as_csv_or_json
def revenue(by: RevenueBy, first: datetime | None, last: datetime | None, form: Form) -> None:
    """Print what was charged, what the images may have cost at the providers, and the margin between them.

    Costs are of failed images too. By day and account it says what has paid: allowance, credit or bill.
    """
    end = last.date() if last else datetime.now(UTC).date()
    days = first.date() if first else end.replace(day=1), end
    if days[0] > end:
        raise click.UsageError("--from is after --to.")
    names = ("charged", *(_PAID_BY if by in {"day", "account"} else ()), "cost", "margin")
    with errors_as_sentences():
        currency = run_on_database(find_currency)
        rows = (
            {by: name, **{each: _cell(getattr(sums, each), form) for each in names}, "currency": currency}
            for name, sums in _revenue(by, *days)
        )
        print_rows(rows, {by: 24, **dict.fromkeys(names, _AMOUNT_WIDTH), "currency": 8}, form=form)


def _cell(amount: int, form: Form) -> object:
    """The decimal: in CSV as a number, since a text that begins with a minus could be a formula."""
    text = format_amount(amount)
    return Decimal(text) if form == "csv" else text


def _revenue(by: RevenueBy, first: date, last: date) -> Iterator[tuple[str, Revenue]]:
    """Of many accounts and keys page by page, of days and models day by day: each statement is short."""
    find = partial(find_revenue, by=by)
    if by in {"account", "key"}:
        for accounts in _pages_of_accounts():
            yield from run_on_database(partial(find, first=first, last=last, accounts=accounts))
        return
    sums: dict[str, Revenue] = {}
    for n in range((last - first).days + 1):
        day = first + timedelta(days=n)
        for name, of_day in run_on_database(partial(find, first=day, last=day)):
            sums[name] = sums.get(name, Revenue()) + of_day
    yield from sorted(sums.items())
