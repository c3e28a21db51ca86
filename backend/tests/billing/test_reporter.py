"""The reporter tells Stripe of each account and closed hour once, whatever happens to it and to its calls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from typing import Any

import asyncpg
import pytest
from app.billing.figures import Figures
from app.billing.hours import close_hours
from app.billing.reporter import Reporter
from app.core.db import connect_for_writing, create_engine
from app.core.metrics import Metrics
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.billing.meter import DAY, FakeMeter, Fault
from tests.billing.postpaid import Postpaid
from tests.harness import fresh_database, looks, until_waited_for
from tests.version_before.history import connected

IS_LOCKED = """
select exists (
  select from pg_locks where locktype = 'advisory'
    and database = (select oid from pg_database where datname = current_database())
)
"""
A_DAY_PASSES = "update charges set tried_at = tried_at - interval '24 hours'"
IS_REPORTED = "select reported_at is not null from charges where account_id = $1"


@dataclass
class Billing:
    """A database of its own, a meter, and what reports from the one to the other."""

    url: str
    database: asyncpg.Connection
    meter: FakeMeter = field(default_factory=FakeMeter)
    metrics: Metrics = field(default_factory=Metrics)

    def reporter(self, **others: Any) -> Reporter:
        connect = partial(connect_for_writing, self.url)
        return Reporter(**{"connect": connect, "meter": self.meter, "metrics": self.metrics.billing, **others})

    async def report(self) -> None:
        """A turn, once PostgreSQL has seen that the connection of the one before is gone."""
        for _ in looks():
            if not await self.database.fetchval(IS_LOCKED):
                break
        await self.reporter().report()

    async def a_day_passes(self) -> None:
        self.meter.clock.now += DAY
        await self.database.execute(A_DAY_PASSES)

    async def is_reported(self, account: Postpaid) -> bool:
        return bool(await self.database.fetchval(IS_REPORTED, account.id))

    def value(self, name: str, **labels: str) -> float | None:
        self.metrics.families.refresh()
        return self.metrics.families.registry.get_sample_value(f"nanobanana_billing_{name}", labels)


@pytest.fixture(scope="module")
def billing_url(server_url: str, migrated_url: str) -> Any:
    """The reporter reports of all accounts: those of other tests are elsewhere."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture
async def billing(billing_url: str) -> AsyncIterator[Billing]:
    async with connected(billing_url) as database:
        await database.execute("delete from charges")
        yield Billing(billing_url, database)


class Killed(Exception):
    """The process was killed."""


@dataclass
class Mortal:
    """Is killed before the n-th of its steps: of statements, calls, and the answers to calls."""

    left: int

    def step(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def wrap(self, call: Callable[..., Awaitable[Any]], *, has_answer: bool = False) -> Callable[..., Awaitable[Any]]:
        async def mortal(*arguments: Any, **named: Any) -> Any:
            self.step()
            result = await call(*arguments, **named)
            if has_answer:
                self.step()
            return result

        return mortal


class MortalConnection:
    def __init__(self, connection: asyncpg.Connection, mortal: Mortal) -> None:
        self.fetch = mortal.wrap(connection.fetch)
        self.fetchval = mortal.wrap(connection.fetchval)
        self.execute = mortal.wrap(connection.execute)
        self.close = connection.close


class MortalMeter:
    def __init__(self, meter: FakeMeter, mortal: Mortal) -> None:
        self.send_meter_event = mortal.wrap(meter.send_meter_event, has_answer=True)
        self.meter_total = mortal.wrap(meter.meter_total)


async def report_until_killed(billing: Billing, *, steps: int) -> bool:
    """Whether it was killed."""
    mortal = Mortal(steps)

    async def connect() -> Any:
        return MortalConnection(await connect_for_writing(billing.url), mortal)

    with suppress(Killed, ExceptionGroup):
        await billing.reporter(connect=connect, meter=MortalMeter(billing.meter, mortal)).report()
    return mortal.left == 0


async def never_tried(_: Billing, __: Postpaid) -> None:
    pass


async def lost_a_day_ago(billing: Billing, _: Postpaid) -> None:
    """The event was counted, and its answer and its identifier are forgotten."""
    billing.meter.faults = ["answer lost"]
    await billing.report()
    await billing.a_day_passes()


async def not_reached_a_day_ago(billing: Billing, _: Postpaid) -> None:
    billing.meter.faults = ["not reached"]
    await billing.report()
    await billing.a_day_passes()


@pytest.mark.parametrize(
    ("before", "days_after"),
    [(never_tried, 0), (never_tried, 1), (lost_a_day_ago, 0), (not_reached_a_day_ago, 0), (not_reached_a_day_ago, 1)],
)
async def test_a_reporter_that_is_killed_between_any_two_steps_leaves_an_hour_that_is_counted_once(
    billing: Billing, before: Callable[[Billing, Postpaid], Awaitable[None]], days_after: int
) -> None:
    steps, was_killed = 0, True
    while was_killed:
        account = await Postpaid.open(billing.database)
        hour = await account.charge(billing.database, 1_250_000)
        await before(billing, account)
        was_killed = await report_until_killed(billing, steps=steps)
        for _ in range(days_after):
            await billing.a_day_passes()
        await billing.report()
        assert await billing.is_reported(account), steps
        assert billing.meter.totals[account.customer_id, hour] == 1_250_000, steps
        steps += 1
    assert steps > 8


@pytest.mark.parametrize("fault", ["answer lost", "not reached", "refused"])
async def test_an_hour_whose_report_failed_is_reported_by_the_next_turn(billing: Billing, fault: Fault) -> None:
    account = await Postpaid.open(billing.database)
    hour = await account.charge(billing.database, 7)
    billing.meter.faults = [fault, fault]
    for reported in (False, False, True, True):
        await billing.report()
        assert await billing.is_reported(account) is reported
    assert billing.meter.calls == [f"{account.id}:{hour:%Y-%m-%dT%H}"] * 3
    assert billing.meter.totals[account.customer_id, hour] == 7
    reason = "refused" if fault == "refused" else "unavailable"
    assert (billing.value("meter_events_total"), billing.value("meter_failures_total", reason=reason)) == (1, 2)


async def test_all_of_an_account_waits_where_one_is_refused_and_that_of_others_does_not(billing: Billing) -> None:
    refused, other = await Postpaid.open(billing.database), await Postpaid.open(billing.database)
    for hours_ago in range(30, 10, -1):
        await refused.charge(billing.database, 5, hours_ago=hours_ago)
    await other.charge(billing.database, 3)
    billing.meter.faults = ["refused"] * 8  # as many as are under way at once
    await billing.report()
    assert (await billing.is_reported(other), sum(billing.meter.totals.values())) == (True, 3)
    await billing.report()
    assert sum(billing.meter.totals.values()) == 20 * 5 + 3


async def test_an_hour_of_which_stripe_has_counted_another_amount_is_left_to_the_operator(
    billing: Billing, log: StringIO
) -> None:
    account = await Postpaid.open(billing.database)
    hour = await account.charge(billing.database, 100)
    await not_reached_a_day_ago(billing, account)
    billing.meter.totals[account.customer_id, hour] = 40
    await billing.report()
    assert (await billing.is_reported(account), billing.meter.totals[account.customer_id, hour]) == (False, 40)
    assert billing.value("meter_failures_total", reason="contradiction") == 1
    assert "meter_contradicts" in log.getvalue()
    assert account.id in log.getvalue()


async def test_whether_an_event_may_be_sent_again_is_judged_when_it_is_sent(billing: Billing) -> None:
    account = await Postpaid.open(billing.database)
    hour = await account.charge(billing.database, 5)
    billing.meter.faults = ["answer lost"]
    await billing.report()

    async def connect() -> Any:
        """A day passes after what is due was read."""
        connection = await connect_for_writing(billing.url)

        async def fetch(statement: str, *arguments: Any) -> Any:
            rows = await connection.fetch(statement, *arguments)
            if rows and not billing.meter.clock.now:
                await billing.a_day_passes()
            return rows

        slow = MortalConnection(connection, Mortal(1000))
        slow.fetch = fetch
        return slow

    await billing.reporter(connect=connect).report()
    assert await billing.is_reported(account)
    assert billing.meter.totals[account.customer_id, hour] == 5


async def test_one_reporter_works_at_a_time_and_another_goes_on_when_it_has_died(billing: Billing) -> None:
    account = await Postpaid.open(billing.database)
    await account.charge(billing.database, 5)
    is_sending, forever = asyncio.Event(), asyncio.Event()

    class Hanging(FakeMeter):
        async def send_meter_event(self, **_: Any) -> None:
            is_sending.set()
            await forever.wait()

    first = asyncio.create_task(billing.reporter(meter=Hanging()).report())
    await is_sending.wait()
    await billing.reporter().report()
    assert billing.meter.calls == []
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    await billing.report()
    assert await billing.is_reported(account)
    assert len(billing.meter.calls) == 1


async def test_only_hours_that_are_over_and_billed_are_closed_and_under_the_lock_of_their_balance(
    billing: Billing,
) -> None:
    account = await Postpaid.open(billing.database)
    await account.charge(billing.database, 5, hours_ago=0)
    await account.charge(billing.database, 0, hours_ago=3)
    over = [await account.charge(billing.database, 5, hours_ago=hours) for hours in (2, 40)]
    connection = await connect_for_writing(billing.url)
    async with billing.database.transaction():
        await billing.database.execute("select from balances where account_id = $1 for no key update", account.id)
        closing = asyncio.create_task(close_hours(connection))
        await until_waited_for(billing.database)
    await closing
    connection.terminate()
    closed = await billing.database.fetch("select hour from charges where closed_at is not null order by hour desc")
    assert [row["hour"] for row in closed] == over


async def test_operators_see_what_stripe_has_not_confirmed_and_which_account_has_no_customer(
    billing: Billing, log: StringIO
) -> None:
    account, without = await Postpaid.open(billing.database), await Postpaid.open(billing.database, has_customer=False)
    for each in (account, without):
        await each.charge(billing.database, 5, hours_ago=4)
    engine = create_engine(billing.url, pool_size=1)
    figures = Figures(async_sessionmaker(engine), billing.metrics.billing)
    reporter = billing.reporter()

    async def shown() -> tuple[float | None, float | None, bool]:
        await figures.show_unreported()
        oldest = billing.value("oldest_unreported_seconds")
        assert oldest is not None
        return billing.value("hours_unreported"), billing.value("accounts_without_customer"), oldest > 3600

    try:
        assert await shown() == (2, 1, True)
        assert log.getvalue().count("hours_unreported") == 1
        for _ in range(2):
            await reporter.report()
        assert await shown() == (1, 1, True)
        assert log.getvalue().count("customer_missing") == 1
        assert without.id in log.getvalue()
        assert await billing.database.fetchval("select tried_at from charges where account_id = $1", without.id) is None
        await billing.database.execute("insert into stripe_customers values ($1, $2)", without.id, without.customer_id)
        await reporter.report()
        assert await shown() == (0, 0, False)
    finally:
        await engine.dispose()
