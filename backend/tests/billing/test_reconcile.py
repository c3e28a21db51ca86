"""`nanobanana billing reconcile` finds each amount that is wrong, and names it; `revenue` sums up the same amounts."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime

import click
import pytest
from app.billing.reconcile import BilledHour, compare_balances, compare_day, compare_hour, find_accounts, find_days
from app.cli.billing_reports import reconcile, revenue
from app.core.db import create_engine
from app.core.security import time_prefix
from app.generations.reconcile import find_differences
from click.testing import CliRunner, Result
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from tests.billing.spent import ACCOUNT, KEY, fill
from tests.harness import fresh_database, on_server
from tests.version_before.history import connected

FIRST, SECOND = f"2026-10-14 {ACCOUNT}:", f"2026-10-15 {ACCOUNT}:"
NOW, OF_KEY = f"{ACCOUNT}:", f"{ACCOUNT} {KEY}:"
HOLDS = "prices of what has not ended"
IDS = {
    "days_before": time_prefix("gen", datetime(2026, 10, 9, tzinfo=UTC)),
    "years_later": time_prefix("gen", datetime(2036, 1, 1, tzinfo=UTC)),
}
"""Of a generation that was delivered days after it was asked for, and of one by a machine whose clock was wrong."""

WRONG: Sequence[tuple[str, Sequence[str]]] = [
    ("update balances set credit = credit + 1", [f"{NOW} credit 9.000001, entries 9"]),
    ("update credit_entries set amount = amount - 1 where kind = 'refund'", [f"{NOW} credit 9, entries 8.999999"]),
    ("delete from credit_entries where kind = 'refund'", [f"{NOW} credit 9, entries 10"]),
    ("update balances set charged = charged + 1", [f"{NOW} charged 0.150001, charges paid by credit 0.15"]),
    (
        "update charges set amount = amount + 1, from_credit = from_credit + 1 where hour < '2026-10-15Z'",
        [
            f"{FIRST} charges 0.150001, usage 0.15, generations 0.15",
            f"{NOW} charged 0.15, charges paid by credit 0.150001",
            f"{NOW} spent 0.25, charges of the period 0.250001",
        ],
    ),
    (
        "update charges set from_allowance = 99999, from_credit = 50001 where from_allowance > 0",
        [f"{NOW} charged 0.15, charges paid by credit 0.150001"],
    ),
    (
        """
        update charges set from_allowance = from_allowance + 1, from_credit = from_credit - 1 where from_allowance > 0;
        update balances set charged = charged - 1
        """,
        [f"{NOW} used of the allowance 0.100001, allowance 0.1"],
    ),
    ("update balances set held = held + 1", [f"{NOW} held 0.050001, {HOLDS} 0.05"]),
    (
        "update generations set price = price + 1 where status = 'processing'",
        [f"{NOW} held 0.05, {HOLDS} 0.050001", f"{OF_KEY} held 0.05, {HOLDS} 0.050001"],
    ),
    (
        "update generations set lease_until = null, status = 'lost' where status = 'processing'",
        [f"{NOW} held 0.05, {HOLDS} 0", f"{OF_KEY} held 0.05, {HOLDS} 0"],
    ),
    ("update balances set spent = spent - 1", [f"{NOW} spent 0.249999, charges of the period 0.25"]),
    ("update api_keys set held = 0", [f"{OF_KEY} held 0, {HOLDS} 0.05"]),
    ("update api_keys set spent = 0", [f"{OF_KEY} spent 0, usage of the period 0.25"]),
    (
        "update usage set amount = amount + 1 where day = '2026-10-15'",
        [
            f"{SECOND} charges 0.1, usage 0.100001, generations 0.1",
            f"{OF_KEY} spent 0.25, usage of the period 0.250001",
        ],
    ),
    (
        "update generations set price = 0 where id = (select min(id) from generations)",
        [f"{FIRST} charges 0.15, usage 0.15, generations 0.1"],
    ),
    (
        "update generations set delivered_at = '2026-10-15Z' where id = (select min(id) from generations)",
        [
            f"{FIRST} charges 0.15, usage 0.15, generations 0.1",
            f"{SECOND} charges 0.1, usage 0.1, generations 0.15",
        ],
    ),
    (
        """
        update deployment set generations_kept_from = '2026-10-15'; delete from generations where status = 'delivered';
        update charges set amount = amount + 1, from_credit = from_credit + 1 where hour < '2026-10-15Z';
        update balances set charged = charged + 1, spent = spent + 1
        """,
        [f"{FIRST} charges 0.150001, usage 0.15", f"{SECOND} charges 0.1, usage 0.1, generations 0"],
    ),
]
"""What is written wrongly, and the differences that this makes."""

RIGHT = [
    "update generations set id = :days_before where id = (select min(id) from generations)",
    "update generations set id = :years_later where id = (select min(id) from generations)",
    "update deployment set generations_kept_from = '2026-10-16'; delete from generations where status = 'delivered'",
    "update api_keys set cap = null, cap_period = null, held = 0, spent = 0",
    """
    insert into subscriptions (account_id, plan, status, anchor_day, started_at, terms)
    select account_id, 'starter', 'active', 1, '2026-10-20Z', '{}' from balances;
    update balances set allowance = 0
    """,
]
"""What makes no difference."""


@pytest.fixture(scope="module")
def spent_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database with an account that has spent money, and nothing else: a test that changes it takes that back."""

    async def begin(url: str) -> None:
        async with connected(url) as database:
            await fill(database)

    with fresh_database(server_url, copy_of=migrated_url) as url:
        asyncio.run(begin(url))
        yield url


@pytest.fixture
async def connection(spent_url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_engine(spent_url, pool_size=1)
    async with engine.connect() as connection:
        yield connection
        await connection.rollback()
    await engine.dispose()


async def _differences(connection: AsyncConnection, statements: str = "") -> Sequence[str]:
    """All that there are once the statements are executed, which is then taken back."""
    async with AsyncSession(connection) as session:
        for statement in filter(None, statements.split(";")):
            await session.execute(text(statement), IDS)
        of_days = [await compare_day(session, day=day, accounts=None) for day in await find_days(session)]
        of_balances = await compare_balances(session, accounts=await find_accounts(session, after="", limit=10))
        await session.rollback()
    return [str(each) for found in (*of_days, of_balances) for each in found]


async def test_each_amount_that_is_wrong_is_found_and_named(connection: AsyncConnection) -> None:
    for statements, expected in WRONG:
        assert await _differences(connection, statements) == expected, statements


async def test_what_agrees_makes_no_difference(connection: AsyncConnection) -> None:
    for statements in ("", *RIGHT):
        assert await _differences(connection, statements) == [], statements


async def test_usage_that_differs_in_its_amount_keeps_a_month_from_being_dropped(connection: AsyncConnection) -> None:
    async with AsyncSession(connection) as session:
        await session.execute(text("update usage set amount = amount + 1 where day = '2026-10-15'"))
        [found] = await find_differences(session, day=date(2026, 10, 15))
        await session.rollback()
    assert (found.key_id, found.counted_amount, found.recorded_amount) == (KEY, 100_001, 100_000)


@pytest.mark.parametrize(
    ("counted", "is_settled", "difference"),
    [
        (5_000, True, None),
        (5_000, False, None),
        (0, False, None),
        (0, True, f"{FIRST} billed at 12:00 0.005, Stripe 0"),
        (10_000, True, f"{FIRST} billed at 12:00 0.005, Stripe 0.01"),
        (10_000, False, f"{FIRST} billed at 12:00 0.005, Stripe 0.01"),
    ],
)
def test_what_stripe_has_counted_of_an_hour_is_what_is_billed(
    counted: int, is_settled: bool, difference: str | None
) -> None:
    hour = BilledHour(ACCOUNT, datetime(2026, 10, 14, 12, tzinfo=UTC), 5_000, is_settled, "cus_1")
    found = compare_hour(hour, counted)
    assert (found and str(found)) == difference


def _run(command: click.Command, url: str, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, env={"DATABASE_URL": url})


def test_the_command_prints_each_day_and_each_difference_and_ends_with_1_where_there_is_one(spent_url: str) -> None:
    days = [
        ["2026-10-14", "0.15", "0.1", "0.05", "0", "0"],
        ["2026-10-15", "0.1", "0", "0.1", "0", "0"],
    ]
    for arguments, shown in (
        ((), days),
        (("--account", ACCOUNT), days),
        (("--from", "2026-10-15", "--to", "2026-10-20"), days[1:]),
    ):
        done = _run(reconcile, spent_url, *arguments)
        lines = done.output.splitlines()
        assert (done.exit_code, [line.split() for line in lines[1:-1]]) == (0, shown), done.output
        assert lines[-1] == f"{len(shown)} days compared, 0 differences."
    on_server(spent_url, "update usage set amount = amount + 1 where day = '2026-10-14'")
    try:
        done = _run(reconcile, spent_url)
    finally:
        on_server(spent_url, "update usage set amount = amount - 1 where day = '2026-10-14'")
    assert done.exit_code == 1
    assert [line for line in done.output.splitlines() if ACCOUNT in line] == [
        f"{FIRST} charges 0.15, usage 0.150001, generations 0.15",
        f"{OF_KEY} spent 0.25, usage of the period 0.250001",
    ]


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        (
            "day",
            [
                "day,charged,from_allowance,from_credit,billed,cost,margin,currency",
                "2026-10-14,0.15,0.1,0.05,0,0.09,0.06,",
                "2026-10-15,0.1,0,0.1,0,0.08,0.02,",
            ],
        ),
        ("model", ["model,charged,cost,margin,currency", "nano-banana,0.25,0.17,0.08,"]),
        (
            "account",
            [
                "account,charged,from_allowance,from_credit,billed,cost,margin,currency",
                f"{ACCOUNT},0.25,0.1,0.15,0,0.17,0.08,",
            ],
        ),
        ("key", ["key,charged,cost,margin,currency", f"{KEY},0.25,0.17,0.08,"]),
    ],
)
def test_revenue_and_margin_are_those_of_the_days_with_the_cost_of_failed_images(
    spent_url: str, by: str, rows: Sequence[str]
) -> None:
    done = _run(revenue, spent_url, "--by", by, "--from", "2026-10-13", "--to", "2026-10-16", "--csv")
    assert (done.exit_code, done.output.splitlines()) == (0, rows), done.output
