"""The money of a customer in cents, read at every place that shows it."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from io import StringIO
from typing import Final

from app.billing import reconcile
from app.billing.revenue import Revenue, RevenueBy, find_revenue
from tests.chaos.money.customer import Customer
from tests.console.test_billing import balance, cells, rows
from tests.harness import JSON

COST = 2
"""Of an image, at the provider."""
_CENT = 10_000
_SUMMED_BY: Final[tuple[RevenueBy, ...]] = ("account", "model", "key")
_PAID_BY = ("from_allowance", "from_credit", "billed", "amount")


@dataclass(frozen=True)
class Figures:
    """What an account has, and what it was charged from its first day on."""

    credit: int
    """The sum of its entries."""
    entries: int
    """How many there are."""
    charged: int
    """What the credit has paid."""
    included: int
    """What plans have paid of what was delivered."""
    billed: int
    """What is paid by invoices."""
    reported: int
    """So much of that was counted by Stripe's meter."""
    invoiced: int
    """What was paid by invoices, the prices of plans too."""
    held: int = 0
    left: int = 0
    """Of the plan's allowance, in this period."""
    plan: str | None = None


def cents(text: str) -> int:
    """An amount such as `-0.05 USD`, which has no fraction of a cent."""
    amount = Decimal(text.split(maxsplit=1)[0]) * 100
    assert amount == int(amount), text
    return int(amount)


async def read(customer: Customer) -> Figures:
    """What the API and the stand-in's meter say."""
    account, entries, hours, days, invoices = [
        (await customer.buyer.call("GET", path)).json()
        for path in ("", "/entries", "/charges", "/charges?group_by=day", "/invoices")
    ]
    sums = _sums(hours)
    assert _sums(days) == sums
    assert sum(cents(each["amount"]) for each in entries) == cents(account["credit"])
    assert sums["from_credit"] == cents(account["charged"])
    left = max(cents(account["allowance"]) - cents(account["spent"]), 0)
    room = cents(account["credit"]) - cents(account["charged"]) - cents(account["held"]) + left
    assert account["available"] is None if account["mode"] == "postpaid" else cents(account["available"]) == room
    events = customer.stripe.meter_events
    return Figures(
        credit=cents(account["credit"]),
        entries=len(entries),
        charged=cents(account["charged"]),
        included=sums["from_allowance"],
        billed=sums["billed"],
        reported=sum(int(each["payload"]["value"]) for each in events) // 10_000,
        invoiced=sum(cents(each["paid"]) for each in invoices),
        held=cents(account["held"]),
        left=left,
        plan=account["plan"],
    )


async def check_pages(customer: Customer, figures: Figures) -> None:
    """The console shows them: in the navigation, on the page about money, and on those of all months until now."""
    account: JSON = await customer.buyer.billing()
    is_postpaid = account["mode"] == "postpaid"
    page = await customer.browser.open("/billing")
    assert cents(balance(page).rsplit(maxsplit=2)[-2]) == cents(account["spent" if is_postpaid else "available"])
    shown = {name: cents(amount) for name, amount in cells(page, "Balance").items()}
    assert shown.get("Credit", 0) == figures.credit - figures.charged
    assert shown.get("Held for images that are not finished", 0) == -figures.held
    assert sum(amount for name, amount in shown.items() if name.startswith("Left of")) == figures.left
    if is_postpaid:
        owed = cents(account["spent"]) - cents(account["allowance"])
        assert shown["To be billed after this month"] == max(owed, 0)
    else:
        assert shown["Available"] == cents(account["available"])
    await _check_months(customer, figures)


async def _check_months(customer: Customer, figures: Figures) -> None:
    """Each month ends with the credit that the next one begins with, and together they have all that was charged, and
    all invoices.
    """
    paid, credit, invoices = Counter[str](), 0, set[str]()
    for month in _months(customer):
        page = await customer.browser.open(month)
        charged = [cents(row[1]) for row in rows(page, "What was charged")]
        paid.update(dict(zip(_PAID_BY, charged, strict=True)))
        opening, *changes, closing = [cents(row[-1]) for row in rows(page, "Credit")]
        assert (opening, opening + sum(changes)) == (credit, closing)
        credit = closing
        if charged[-1]:
            assert [cents(each) for each in rows(page, "By day")[-1][1:]] == charged
            assert cents(rows(page, "By model and key")[-1][-1]) == charged[-1]
        invoices |= {each.attributes["href"] for each in page.all("a", rel="noreferrer")}
    assert credit == figures.credit - figures.charged
    assert paid == _paid(figures)
    assert invoices == {each["url"] for each in (await customer.buyer.call("GET", "/invoices")).json()}


async def check_files(customer: Customer, figures: Figures) -> None:
    """The CSV files of all months have together what was charged, and every image."""
    files = [(await customer.browser.client.get(f"{month}.csv")).text for month in _months(customer)]
    lines = [line for file in files for line in csv.DictReader(StringIO(file))]
    assert sum(cents(line["amount"]) for line in lines) == _paid(figures)["amount"]
    assert sum(int(line["images"]) for line in lines) == len(customer.drawn)


def _months(customer: Customer) -> Sequence[str]:
    """The paths of the pages of all months until now, on whatever day they begin."""
    return [f"/billing/months/2027-{month:02}" for month in range(2, customer.clock.now.month + 1)]


def _paid(figures: Figures) -> Counter[str]:
    sums = {"from_allowance": figures.included, "from_credit": figures.charged, "billed": figures.billed}
    return Counter({**sums, "amount": sum(sums.values())})


def _sums(charges: Sequence[JSON]) -> Counter[str]:
    return Counter({name: sum(cents(each[name]) for each in charges) for name in _PAID_BY})


async def find_differences(customer: Customer) -> Sequence[str]:
    """What `billing reconcile --stripe` would print."""
    purchases, accounts = customer.buyer.shop.sweeper.purchases, [customer.account_id]
    async with purchases.sessions.begin() as session:
        found = [*await reconcile.compare_balances(session, accounts=accounts)]
        for day in await reconcile.find_days(session):
            found += await reconcile.compare_day(session, day=day, accounts=accounts)
            for hour in await reconcile.find_billed(session, day=day, accounts=accounts, after=None):
                counted = await purchases.stripe.meter_total(hour.customer_id, hour.hour)
                found += [each for each in [reconcile.compare_hour(hour, counted)] if each]
    return [str(each) for each in found]


async def check_revenue(customer: Customer, figures: Figures) -> None:
    """What `billing revenue` sums up by account, model and key is what was charged, and what the images have cost."""
    first, last = date(2027, 3, 1), customer.clock.now.date()
    paid = _paid(figures)
    async with customer.buyer.shop.sweeper.purchases.sessions.begin() as session:
        for by in _SUMMED_BY:
            found = sum((each for _, each in await find_revenue(session, by=by, first=first, last=last)), Revenue())
            assert found.charged // _CENT == paid["amount"]
            assert found.cost // _CENT == COST * len(customer.drawn)
            if by == "account":
                assert (found.from_allowance // _CENT, found.from_credit // _CENT, found.billed // _CENT) == (
                    figures.included,
                    figures.charged,
                    figures.billed,
                )
