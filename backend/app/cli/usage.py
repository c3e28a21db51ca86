"""`nanobanana usage`: an operator sums up what was used, and compares the counters with the recorded generations."""

import sys
from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import get_args

import click

from app.catalogue.prices import format_amount
from app.cli.database import run_on_database
from app.cli.days import DAY, MONTH
from app.cli.errors import errors_as_sentences
from app.cli.output import Form, Row, as_csv_or_json, print_rows
from app.features.usage.report import COLUMNS, Group, ReportBy, Totals, find_currency, find_page
from app.generations.reconcile import Difference, find_days, find_differences, find_kept_from

_WIDTHS = {"account_id": 24, "email": 30, "key_id": 24, "name": 20, "environment": 11, "model": 20, "day": 10}
_AMOUNT_WIDTHS = {"images": 9, "test_images": 11, "list_amount": 12, "amount": 12, "cost": 12, "currency": 8}


@click.group()
def usage() -> None:
    """Look after what was counted."""


@usage.command()
@click.option(
    "--by", type=click.Choice(get_args(ReportBy)), default="account", help="A line for each; account by default."
)
@click.option("--from", "first", type=DAY, help="The first day, in UTC; by default the first of this month.")
@click.option("--to", "last", type=DAY, help="The last day, in UTC; by default today.")
@click.option("--month", type=MONTH, help="All days of a month instead, such as 2026-10.")
@as_csv_or_json
def report(by: ReportBy, first: datetime | None, last: datetime | None, month: datetime | None, form: Form) -> None:
    """Print what was delivered, with list prices, charges (amount) and costs: by account, key, model or day.

    Costs are what the calls for delivered images may have cost at the providers.
    """
    days = _days(first, last, month)
    with errors_as_sentences():
        currency = run_on_database(find_currency)
        groups = _merged(by, days) if by in {"model", "day"} else _pages(by, days)
        names = COLUMNS[by]
        rows = (_row(dict(zip(names, group, strict=True)), totals, currency) for group, totals in groups)
        print_rows(rows, {**{name: _WIDTHS.get(name, 12) for name in names}, **_AMOUNT_WIDTHS}, form=form)


@usage.command()
def reconcile() -> None:
    """Prove that usage equals the ledger: for every key, model and UTC day, the counter and the delivered generations.

    It reads day by day and holds nothing up. Ends with 1, and says where, if there is a difference.
    """
    with errors_as_sentences():
        days = run_on_database(find_days)
        differences = [found for day in days for found in run_on_database(partial(find_differences, day=day))]
        for found in differences:
            click.echo(f"{found.date} {found.key_id} {found.model}: {_sentence(found)}")
        click.echo(f"{len(days)} days compared, {len(differences)} differences.")
        if kept_from := run_on_database(find_kept_from):
            click.echo(f"Days before {kept_from} are not compared: their generations may have been dropped.")
        sys.exit(1 if differences else 0)


def _days(first: datetime | None, last: datetime | None, month: datetime | None) -> tuple[date, date]:
    """The first and the last day of the report."""
    if month is not None:
        if first or last:
            raise click.UsageError("Name a month, or days with --from and --to.")
        return month.date(), month.date().replace(day=monthrange(month.year, month.month)[1])
    to = last.date() if last else datetime.now(UTC).date()
    days = first.date() if first else to.replace(day=1), to
    if days[0] > to:
        raise click.UsageError("--from is after --to.")
    return days


def _pages(by: ReportBy, days: tuple[date, date]) -> Iterator[tuple[Group, Totals]]:
    """What `find_page` returns, page by page, each read in a transaction of its own."""
    first, last = days
    after: str | None = ""
    while after is not None:
        page = run_on_database(partial(find_page, by=by, first=first, last=last, after=after))
        yield from page.totals
        after = page.last


def _merged(by: ReportBy, days: tuple[date, date]) -> Sequence[tuple[Group, Totals]]:
    """The same with each group once, in order: of models and days there are few."""
    merged: defaultdict[Group, Totals] = defaultdict(Totals)
    for group, totals in _pages(by, days):
        merged[group] += totals
    return sorted(merged.items(), key=lambda item: str(item[0]))


def _row(group: Row, totals: Totals, currency: str | None) -> Row:
    amounts = {name: format_amount(getattr(totals, name)) for name in ("list_amount", "amount", "cost")}
    return {**group, "images": totals.images, "test_images": totals.test_images, **amounts, "currency": currency}


def _sentence(found: Difference) -> str:
    pairs = {
        "images": (found.counted, found.recorded),
        "list amount": (found.counted_list_amount, found.recorded_list_amount),
        "amount": (found.counted_amount, found.recorded_amount),
        "cost": (found.counted_cost, found.recorded_cost),
    }
    return "; ".join(
        f"{name} counted {counted}, recorded {recorded}"
        for name, (counted, recorded) in pairs.items()
        if counted != recorded
    )
