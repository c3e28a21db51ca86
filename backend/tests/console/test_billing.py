"""The pages about money: exact amounts, by their account alone, in the digits of the currency."""

import csv
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import asyncpg
import httpx2
import pytest
from app.console.notices import notices
from app.core.settings import Settings
from app.features.billing.situation import CapUse, MoneySituation
from tests.console.browser import Browser, Page, new_browser
from tests.harness import running
from tests.problems import check_error_page

MODELS = """
currency = "{currency}"
[plans.starter]
title = "Starter"
price = "10"
allowance = "15"
[models.banana]
price = {{ "1K" = "{price}", "2K" = "{larger}" }}
routes = [{{ provider = "stub" }}]
"""
PRICES = {"USD": ("0.05", "0.08"), "JPY": ("7", "12")}
MILLION = 1_000_000
ENDS = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def currency(request: pytest.FixtureRequest) -> str:
    """The deployment's."""
    return str(getattr(request, "param", "USD"))


EVERY_CURRENCY = pytest.mark.parametrize("currency", PRICES, indirect=True)


@pytest.fixture(scope="module")
async def paid_site(
    settings: Settings, currency: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx2.AsyncClient]:
    """A deployment that charges for what the stub draws, without Stripe."""
    models = tmp_path_factory.mktemp("paid") / "models.toml"
    price, larger = PRICES[currency]
    models.write_text(MODELS.format(currency=currency, price=price, larger=larger))
    changes = {"public_url": "http://console.test", "models_file": models, "billing": "on"}
    async with running(Settings(**{**settings.model_dump(), **changes})) as client:
        yield client


@pytest.fixture
async def payer(paid_site: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """A browser of a new account."""
    async with new_browser(paid_site) as browser:
        assert (await browser.sign_up()).status == 200
        yield browser


async def account_of(database: asyncpg.Connection, browser: Browser) -> str:
    owner = "select 'acc_' || substr(id, 5) from users where email = $1"
    return str(await database.fetchval(owner, await browser.email()))


async def grant(database: asyncpg.Connection, account_id: str, amount: int) -> None:
    await database.execute(
        """with entry as (insert into credit_entries (id, account_id, kind, amount, reference, charged_before)
             values ('ent_' || $1, $1, 'grant', $2, 'grant:' || $1, 0))
           update balances set credit = $2 where account_id = $1""",
        account_id,
        amount,
    )


def rows(page: Page, caption: str) -> list[list[str]]:
    """The cells of the table with this caption, row by row."""
    [table] = [each for each in page.all("table") if each.text.strip().startswith(caption)]
    found: list[list[str]] = []
    for element in page.elements[page.elements.index(table) + 1 :]:
        if element.tag == "table":
            break
        if element.tag == "tr":
            found.append([])
        elif element.tag in {"th", "td"}:
            found[-1].append(" ".join(element.text.split()))
    return found


def cells(page: Page, caption: str) -> dict[str, str]:
    """The last cell of each row of such a table by its first."""
    return {row[0]: row[-1] for row in rows(page, caption)}


def balance(page: Page) -> str:
    return page.text("a", id="balance").split(" ", 1)[1]


@dataclass(frozen=True)
class Shown:
    """What the pages show of an account that has credit for two images and a bit."""

    granted: int
    price: str
    balances: tuple[str, str, str]
    total: str


SHOWN = {
    "USD": Shown(120_000, "0.05 USD (1K) or 0.08 USD (2K)", ("0.12 USD", "0.07 USD", "0.02 USD"), "0.10"),
    "JPY": Shown(15 * MILLION, "7 JPY (1K) or 12 JPY (2K)", ("15 JPY", "8 JPY", "1 JPY"), "14"),
}


@EVERY_CURRENCY
async def test_images_are_taken_from_the_balance_and_explained_to_the_last_unit(
    payer: Browser, database: asyncpg.Connection, currency: str
) -> None:
    shown, name = SHOWN[currency], "<b>key</b>"
    key_id, _ = await payer.create_key(name=name)
    await grant(database, await account_of(database, payer), shown.granted)
    page = await payer.open("/playground")
    assert f"An image costs {shown.price}. Test keys are free." in page.response.text
    seen = [balance(page), *[balance(await payer.generate(prompt)) for prompt in ("one", "two")]]
    assert tuple(seen) == shown.balances
    refused = await payer.generate("three")
    assert (refused.status, balance(refused)) == (402, shown.balances[-1])
    [alert] = refused.all("p", role="alert")
    assert "too little credit" in alert.text
    assert len([each for each in refused.all("a", href="/billing") if each.text in alert.text]) >= 1
    page = await payer.open("/billing")
    assert cells(page, "Balance") == {"Credit": shown.balances[-1], "Available": shown.balances[-1]}
    [month] = [each.attributes["href"] for each in page.all("a") if "explained" in each.text]
    page = await payer.open(month)
    assert name not in page.response.text
    assert rows(page, "By model and key")[1:] == [["banana", name, "2", shown.total], ["Charged", "", "", shown.total]]
    zero, total = [each.split()[0] for each in paid(currency)[:2]]
    assert rows(page, "By day")[-1] == ["Charged", zero, total, zero, total]
    assert [each[1] for each in rows(page, "What was charged")] == [*paid(currency)]
    credit = [each[-1] for each in rows(page, "Credit")]
    assert (credit[1], credit[-1]) == (shown.balances[0], shown.balances[-1])
    lines = list(csv.DictReader(StringIO((await payer.client.get(f"{month}.csv")).text)))
    assert [(line["key_id"], line["images"], line["amount"], line["currency"]) for line in lines] == [
        (key_id, "2", shown.total.removesuffix("0"), currency)
    ], "for programs, as in the API"


def paid(currency: str) -> Sequence[str]:
    """By the plan, by credit, by invoice, and all: of two images."""
    zero, total = ("0.00 USD", "0.10 USD") if currency == "USD" else ("0 JPY", "14 JPY")
    return zero, total, zero, total


async def test_a_month_adds_up_allowance_credit_and_bills_by_the_accounts_own_period(
    payer: Browser, database: asyncpg.Connection
) -> None:
    account = await account_of(database, payer)
    key_id, _ = await payer.create_key()
    await database.execute("update balances set anchor = '9 days' where account_id = $1", account)
    for day, charged in ((9, (5, 0, 5, 0)), (10, (7, 4, 3, 0)), (28, (2, 0, 0, 2)), (40, (1, 1, 0, 0))):
        hour = datetime(2026, 1, 1, 23, tzinfo=UTC) + timedelta(days=day - 1)
        await database.execute("insert into charges values ($1, $2, $3, $4, $5, $6)", account, hour, *charged)
        await database.execute(
            "insert into usage (key_id, day, pictures, amount) values ($1, $2, 1, $3)", key_id, hour.date(), charged[0]
        )
    entry = "insert into credit_entries values ($2 || $1, $1, $3, $4, $2 || $1, null, 0, $5)"
    for kind, amount, at in (
        ("grant", 20, datetime(2026, 1, 9, tzinfo=UTC)),
        ("adjustment", -4, datetime(2026, 1, 20, tzinfo=UTC)),
    ):
        await database.execute(entry, account, kind, kind, amount, at)
    page = await payer.open("/billing/months/2026-01")
    assert page.text("h1") == "10 January to 9 February 2026"
    expected = ["0.000005", "0.000003", "0.000002", "0.00001"]
    assert [each[1].split()[0] for each in rows(page, "What was charged")] == expected
    assert [each[-1].split()[0] for each in rows(page, "Credit")][0:] == [
        "0.000015",
        "-0.000004",
        "-0.000003",
        "0.000008",
    ]
    assert rows(page, "By day")[-1][1:] == expected
    assert rows(page, "By model and key")[-1][-1] == expected[-1]


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "1999-01", "\u0662026-01", "cap.csv", "2026-01.csv.csv"])
async def test_what_is_no_month_is_no_page(payer: Browser, month: str) -> None:
    assert (await payer.open(f"/billing/months/{month}")).status == 404


@EVERY_CURRENCY
async def test_caps_are_set_changed_and_removed_in_exact_amounts(
    payer: Browser, database: asyncpg.Connection, currency: str
) -> None:
    account, (key_id, _) = await account_of(database, payer), await payer.create_key()
    for path, cap in (
        ("/billing/cap", "select cap from balances where account_id = $1"),
        (f"/keys/{key_id}/cap", "select cap from api_keys where account_id = $1"),
    ):
        for text, status, stored in (("12.345678", 200, 12_345_678), ("-1", 422, 12_345_678), ("0", 200, 0)):
            page = await payer.submit(await payer.open(path), path, amount=text)
            assert (page.status, await database.fetchval(cap, account)) == (status, stored), (path, text)
        assert (await payer.open(path)).form(path).values["amount"] == "0"
        assert (await payer.submit(await payer.open(path), f"{path}/remove")).status == 200
        assert await database.fetchval(cap, account) is None
    await payer.submit(await payer.open(f"/keys/{key_id}/cap"), f"/keys/{key_id}/cap", amount="20", period="day")
    [cell] = (await payer.open("/keys")).all("td", data_label="Cap")
    assert " ".join(cell.text.split()).startswith(
        f"{'0.00 USD of 20.00 USD' if currency == 'USD' else '0 JPY of 20 JPY'} a day"
    )


async def test_of_two_times_of_payment_neither_is_taken(payer: Browser) -> None:
    assert (await payer.open("/billing?paid_since=1")).status == 200
    check_error_page((await payer.open("/billing?paid_since=1&paid_since=1")).response, 422)


async def test_a_key_that_costs_nothing_stands_in_no_table_of_caps(payer: Browser) -> None:
    await payer.create_key(environment="test")
    assert (await payer.open("/billing")).text("p", class_="empty").startswith("No live keys yet.")


async def test_nobody_sees_or_changes_the_money_of_another_account(
    payer: Browser, paid_site: httpx2.AsyncClient, database: asyncpg.Connection
) -> None:
    key_id, _ = await payer.create_key(name="secret-name")
    account = await account_of(database, payer)
    await grant(database, account, 77 * MILLION)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    await database.execute("insert into charges values ($1, $2, 77000000, 0, 77000000, 0)", account, today)
    used = "insert into usage (key_id, day, pictures, amount) values ($1, $2, 1, 77000000)"
    await database.execute(used, key_id, today.date())
    month = f"/billing/months/{today:%Y-%m}"
    async with new_browser(paid_site) as other:
        await other.sign_up()
        own, _ = await other.create_key(name="own")
        form = await other.open(f"/keys/{own}/cap")
        token = form.form(f"/keys/{own}/cap").values["csrf_token"]
        assert (await other.open(f"/keys/{key_id}/cap")).status == 404
        for action in ("", "/remove"):
            values = {"csrf_token": token, **({} if action else {"amount": "1", "period": "day"})}
            assert (await other.post(f"/keys/{key_id}/cap{action}", values)).status == 404
        for path in ("/billing", month, f"{month}.csv", "/usage", "/playground"):
            text = (await other.open(path)).response.text
            assert ("secret-name" in text, "77.00 USD" in text or ">77<" in text) == (False, False), path
    assert await database.fetchval("select cap from api_keys where id = $1", key_id) is None


@pytest.mark.parametrize("path", ["/billing", "/billing/cap", "/billing/months/2026-11", "/billing/months/2026-11.csv"])
async def test_a_deployment_that_charges_nothing_has_no_page_about_money(ada: Browser, path: str) -> None:
    assert (await ada.open(path)).status == 404
    keys = await ada.open("/keys")
    assert (keys.all("a", href="/billing"), keys.all("a", id="balance")) == ([], [])


def situation(available: int | None = 50 * MILLION, **more: Any) -> MoneySituation:
    return MoneySituation(**{"available": available, "spent_a_day": 4 * MILLION, "image": 50_000, **more})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (situation(), []),
        (situation(4 * MILLION), []),
        (
            situation(4 * MILLION - 1),
            ["What you have left, 3.999999 USD, lasts for less than a day of your recent use."],
        ),
        (situation(50_000, spent_a_day=0), []),
        (situation(49_999, spent_a_day=0), ["What you have left, 0.049999 USD, does not pay for another image."]),
        (situation(0), ["You have no credit left."]),
        (situation(-MILLION), ["You have no credit left."]),
        (situation(0, image=0), []),
        (situation(None), []),
        (situation(subscription="active"), []),
        (situation(subscription="cancelled"), []),
        (
            situation(subscription="past_due"),
            ["A payment for your plan has failed. The plan goes on for some days: please pay the open invoice."],
        ),
        (
            situation(0, subscription="stopped"),
            [
                "Your plan has stopped, because a payment for it is missing. It goes on once the invoice is paid.",
                "You have no credit left.",
            ],
        ),
        (situation(caps=[CapUse(None, MILLION, 100_000, ENDS)]), []),
        (
            situation(caps=[CapUse(None, MILLION, 99_999, ENDS)]),
            ["The cap of your account, 1.00 USD, is nearly reached: 0.099999 USD is left until 1 December, 00:00 UTC."],
        ),
        (
            situation(caps=[CapUse("app", 10 * MILLION, 49_999, ENDS)]),
            ["The cap of your key “app”, 10.00 USD, is reached: nothing more is drawn until 1 December, 00:00 UTC."],
        ),
        (
            situation(caps=[CapUse("app", 10 * MILLION, -5, None)]),
            ["The cap of your key “app”, 10.00 USD, is reached: nothing more is drawn until you raise it."],
        ),
        (
            situation(image=0, caps=[CapUse("app", MILLION, 1, None)]),
            ["The cap of your key “app”, 1.00 USD, is nearly reached: 0.000001 USD is left."],
        ),
    ],
)
def test_notices_come_before_money_ends_and_not_earlier(found: MoneySituation, expected: list[str]) -> None:
    assert notices(found, currency="USD") == expected
