"""Faults under traffic: nothing acknowledged is lost, nothing refused is recorded, every count is exact."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from tests.chaos.cluster import Cluster
from tests.chaos.conftest import DEADLINE_SECONDS
from tests.chaos.fleet import Serve, everything_works_again
from tests.chaos.ground import Ground
from tests.chaos.load import Call, Line, Order, Traffic
from tests.chaos.models import CAREFUL, DRAWING_SECONDS, LAVISH, STUB, models_on_standins
from tests.chaos.proxy import Point
from tests.chaos.schedule import Schedule, times
from tests.chaos.verify import all_ended, violations, watching_last_use, wrongly_served
from tests.harness import sign_up

CLIENTS, LINES = 8, 3  # each client has a key, and this many connections
MIXED_CLIENTS = 3
RECOVERY_SECONDS = 60
PAUSE_SECONDS_MAX = times(short=4, long=10) / 10
Fault = Callable[[Ground, Schedule], Awaitable[None]]


async def kill_a_worker(ground: Ground, schedule: Schedule) -> None:
    """One that has callers, and not the last of them."""
    for _ in range(RECOVERY_SECONDS * 10):
        busy = sorted(set(ground.fleet.holders().values()))
        if len(busy) > 1:
            ground.fleet.kill(schedule.pick(busy))
            return
        await asyncio.sleep(0.1)
    raise AssertionError("callers come to one worker only")


async def stop_the_database_at_once(ground: Ground, schedule: Schedule) -> None:
    await ground.cluster.stop_at_once()
    await asyncio.sleep(schedule.between(0, PAUSE_SECONDS_MAX))
    await ground.cluster.start()


async def cut_every_connection(ground: Ground, _schedule: Schedule) -> None:
    ground.proxy.cut()


async def cut_a_statement(ground: Ground, schedule: Schedule) -> None:
    points: list[Point] = ["request", "answer"]
    await ground.proxy.ambush(schedule.pick(points)).spring(within_seconds=RECOVERY_SECONDS)


@dataclass(frozen=True)
class Trial:
    """How often something fails, and what callers may meet besides their pictures."""

    fault: Fault
    count: int
    codes: frozenset[str] = frozenset()


TRIALS = [
    Trial(kill_a_worker, times(short=1, long=30), frozenset({"reset", "cut"})),
    Trial(stop_the_database_at_once, times(short=1, long=30), frozenset({"unavailable", "outcome_unknown"})),
    Trial(cut_every_connection, times(short=2, long=30), frozenset({"unavailable"})),
    Trial(cut_a_statement, times(short=2, long=100)),
]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.fault.__name__)
async def test_whatever_fails_under_traffic_the_ledger_is_what_callers_were_told(
    ground: Ground, schedule: Schedule, journal: list[Call], trial: Trial
) -> None:
    keys = await ground.keys(CLIENTS)
    traffic = Traffic(ground.fleet.port, journal, keys, lines=LINES)
    started = time.monotonic()
    async with watching_last_use(ground.cluster, keys), traffic.flowing():
        for _ in range(trial.count):
            await asyncio.sleep(schedule.between(0.1, PAUSE_SECONDS_MAX))
            await trial.fault(ground, schedule)
        await everything_works_again(ground.fleet, keys[0], journal)
    tell(trial, journal, time.monotonic() - started)
    assert await violations(ground.cluster, journal) == []
    assert {call.code for call in journal} <= {"", *trial.codes}


ORDERS = [
    Order(),
    Order(CAREFUL),
    Order(LAVISH, images=3),
    Order(STUB, images=2),
    Order(CAREFUL, images=2),
    Order(LAVISH, hangs_up_after=0.05),
    Order(CAREFUL, hangs_up_after=0.6),
]
MIXED_CODES = {
    *("", "reset", "cut", "hung up", "unavailable", "outcome_unknown", "idempotency_key_in_use"),
    *("provider_failed", "provider_timeout", "provider_unavailable", "content_policy_violation"),
}


async def test_whatever_fails_under_traffic_to_many_models_prices_and_costs_are_those_of_what_was_delivered(
    ground: Ground, schedule: Schedule, journal: list[Call]
) -> None:
    keys = [*await ground.keys(MIXED_CLIENTS), await ground.account.create_key(environment="test")]
    trial = Trial(fail_in_every_way, times(short=1, long=15), frozenset(MIXED_CODES))
    started = time.monotonic()
    async with Traffic(ground.fleet.port, journal, keys, lines=LINES, orders=ORDERS).flowing():
        for _ in range(trial.count):
            await trial.fault(ground, schedule)
        await everything_works_again(ground.fleet, keys[0], journal)
    await all_ended(ground.cluster, within_seconds=DRAWING_SECONDS + DEADLINE_SECONDS)
    tell(trial, journal, time.monotonic() - started)
    assert await violations(ground.cluster, journal) == []
    assert await wrongly_served(ground.cluster, ground.account.client, keys) == []
    assert {call.code for call in journal} <= trial.codes
    assert any(len(call.ids) < call.images for call in journal if call.ids), "some were delivered in part"


async def fail_in_every_way(ground: Ground, schedule: Schedule) -> None:
    for fault in (kill_a_worker, cut_a_statement, stop_the_database_at_once):
        await asyncio.sleep(schedule.between(0.1, PAUSE_SECONDS_MAX))
        await fault(ground, schedule)


@pytest.mark.parametrize("mutant", ["fallback-counts-twice", "settlement-forgets-cost"])
async def test_a_settlement_that_counts_wrong_is_caught(
    cluster: Cluster, serve: Serve, journal: list[Call], tmp_path: Path, mutant: str
) -> None:
    program = ("-m", "tests.chaos.mutants", mutant, "serve")
    async with models_on_standins(tmp_path) as models, serve(program=program, workers=1, **models) as fleet:
        async with httpx2.AsyncClient(base_url=fleet.url, timeout=30) as client:
            key = await (await sign_up(client)).create_key()
        line = Line(fleet.port, journal)
        for prompt in ("the first route", "the second route", "the first again"):
            assert (await line.ask(key, prompt, order=Order(CAREFUL))).outcome == "ok"
        line.close()
    assert any("usage of careful" in each for each in await violations(cluster, journal))


def tell(trial: Trial, journal: list[Call], seconds: float) -> None:
    outcomes = Counter(call.outcome for call in journal)
    codes = Counter(call.code for call in journal if call.code)
    what = f"{trial.count} x {trial.fault.__name__}"
    sys.stdout.write(f"{what}: {len(journal)} calls in {seconds:.0f} s, {dict(outcomes)}, {dict(codes)}\n")
