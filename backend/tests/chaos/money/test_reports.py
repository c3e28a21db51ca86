"""The process that reports to Stripe is killed in the middle of a call, and Stripe refuses, loses answers and forgets:
each closed hour is counted once.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from app.core.settings import Settings
from app.payments import PlanPrice
from app.payments.opened import open_stripe
from tests.billing.postpaid import Postpaid
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import environment_of
from tests.chaos.jobs.hands import Hands, hands, mutant
from tests.chaos.jobs.yard import execute
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import IS_LONG, Schedule, times
from tests.harness import looks
from tests.redis_server import RedisServer
from tests.standins.stripe import StripeStandIn, Trouble, serving_stripe
from tests.standins.stripe_state import DAY
from tests.standins.wire import Seen

KILLS, ACCOUNTS = times(short=1, long=40), 4
_CALLS_OF_A_LIFE = [1, 2, 3]
_TROUBLES: Sequence[Trouble | None] = [None, None, None, "refuse", "fail", "lose", "close", "limit"]
_LOST: Sequence[Trouble] = ["lose", "close"]
_LOOK_SECONDS = 0.05
_UNREPORTED = "select from charges where reported_at is null"
_A_DAY_PASSES = "update charges set tried_at = tried_at - interval '24 hours'"
Hour = tuple[str, datetime]
"""Of a customer at Stripe."""


@dataclass
class Stage:
    """Hours that are to be billed, Stripe, and the processes that report the ones to the other."""

    own: Cluster
    standin: StripeStandIn
    reporters: Hands
    schedule: Schedule
    billed: Mapping[Hour, int]
    _calls_left: int = 0

    async def kill_in_a_call(self) -> None:
        """Has a process report until Stripe has one of its first calls, and kills it before it has the answer."""
        self._calls_left = self.schedule.pick(_CALLS_OF_A_LIFE)
        self.standin.trouble = self._trouble
        self.reporters.start()
        for _ in looks():
            if not self.reporters.running:
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError(f"nothing is sent: {self.reporters.said}")

    def _trouble(self, seen: Seen) -> Trouble | None:
        if seen.path != "/v1/billing/meter_events":
            return None
        self._calls_left -= 1
        if self._calls_left == 0:
            self.reporters.kill(self.reporters.running[0])
            return self.schedule.pick(_LOST)
        return self.schedule.pick(_TROUBLES)

    async def let_a_day_pass(self) -> None:
        """Stripe forgets the identifiers of all events that it has."""
        self.standin.advance(DAY)
        await execute(self.own, _A_DAY_PASSES)

    async def report_all(self) -> None:
        self.standin.trouble = lambda _seen: None
        self.reporters.start()
        for _ in looks():
            if not await execute(self.own, _UNREPORTED):
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError(f"not all is reported: {self.reporters.said}")

    def counted(self) -> Counter[Hour]:
        """What the meter has counted of each customer and hour."""
        found = Counter[Hour]()
        for event in self.standin.meter_events:
            hour = datetime.fromtimestamp(event["timestamp"], UTC).replace(minute=0, second=0)
            found[event["payload"]["stripe_customer_id"], hour] += int(event["payload"]["value"])
        return found


OpenStage = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture
def open_stage(
    own_cluster: Cluster, proxy: Proxy, own_redis: RedisServer, schedule: Schedule, tmp_path: Path
) -> OpenStage:
    """Opens one whose processes are this program: `async with open_stage(kills=2, program=mutant(name)) as stage`."""

    @asynccontextmanager
    async def begin(*, kills: int, program: Sequence[str]) -> AsyncIterator[Stage]:
        proxy.open()
        hours = 1 + max(_CALLS_OF_A_LIFE) * kills // ACCOUNTS  # a life may report as many
        async with serving_stripe() as standin:
            settings = {"STRIPE_SECRET_KEY": standin.key, "STRIPE_API_URL": standin.url}
            url = own_cluster.url_through(proxy.port)
            environment = environment_of(url, own_redis.url, tmp_path, **settings)
            billed = await _bill(own_cluster, standin, hours)
            async with hands(environment, tmp_path / "reporters", count=0, program=program) as reporters:
                yield Stage(own_cluster, standin, reporters, schedule, billed)

    return begin


async def _bill(own: Cluster, standin: StripeStandIn, hours: int) -> Mapping[Hour, int]:
    """Charges accounts that pay afterwards in so many hours, each another amount."""
    billed: dict[Hour, int] = {}
    database = await own.connect()
    settings = Settings(stripe_secret_key=standin.key, stripe_api_url=standin.url)
    async with open_stripe(settings) as stripe, database.transaction():  # in which no hour ends
        assert stripe is not None
        await stripe.sync([PlanPrice("starter", "Starter", 10_000_000)], "USD", webhook_url=None)
        for _ in range(ACCOUNTS):
            account = await Postpaid.open(database, has_customer=False)
            customer = await stripe.find_or_create_customer(account.id, f"{account.id}@example.com")
            await database.execute("insert into stripe_customers values ($1, $2)", account.id, customer)
            for n in range(hours):
                amount = 1_000_000 + len(billed)
                hour = await account.charge(database, amount, hours_ago=2 + n)
                billed[customer, hour] = amount
    await database.close()
    return billed


async def _report(stage: Stage, *, kills: int) -> None:
    for n in range(kills):
        await stage.kill_in_a_call()
        if n % 2 == 0:
            await stage.let_a_day_pass()
    await stage.report_all()


async def test_each_closed_hour_is_counted_once_by_stripe_however_often_its_reporter_is_killed(
    open_stage: OpenStage,
) -> None:
    async with open_stage(kills=KILLS, program=mutant("reports-without-pause")) as stage:
        before = stage.own.lock_errors()
        await _report(stage, kills=KILLS)
        assert stage.counted() == stage.billed
        assert stage.own.lock_errors() - before == {}


@pytest.mark.skipif(not IS_LONG, reason="the defect that the fault test finds is tried with CHAOS=long")
async def test_an_event_that_is_sent_again_when_its_identifier_is_forgotten_is_caught(open_stage: OpenStage) -> None:
    kills = 10
    async with open_stage(kills=kills, program=mutant("reports-what-is-forgotten")) as stage:
        await _report(stage, kills=kills)
        twice = [each for each, amount in stage.counted().items() if amount == 2 * stage.billed[each]]
        assert twice
