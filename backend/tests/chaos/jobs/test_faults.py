"""Faults under jobs and calls: each is delivered once, or ended once and its caller can read why; counts are exact."""

import asyncio
from collections.abc import Mapping

import pytest
from tests.chaos.jobs.broken import broken_by
from tests.chaos.jobs.callers import JobCallers
from tests.chaos.jobs.conftest import Employ
from tests.chaos.jobs.faults import (
    Fault,
    freeze_a_worker,
    kill_a_process_of_the_server,
    kill_a_worker,
    lose_redis,
    lose_the_store,
    revoke_a_key,
    stop_a_worker,
    stop_the_database_at_once,
)
from tests.chaos.jobs.hands import mutant
from tests.chaos.jobs.provider import PLAIN
from tests.chaos.jobs.yard import Yard, execute
from tests.chaos.load import Line, Order
from tests.chaos.schedule import IS_LONG, Schedule, times
from tests.harness import Account

WORKERS = 3
SAME_REQUESTS = 8
ROUNDS_MAX = 8
_CANCELLED = "update generations set status = 'cancelled', lease_until = null where key_id = $1"

FAULTS: Mapping[Fault, int] = {
    kill_a_worker: times(short=2, long=50),
    stop_the_database_at_once: times(short=1, long=20),
    stop_a_worker: times(short=1, long=20),
    kill_a_process_of_the_server: times(short=1, long=10),
    freeze_a_worker: times(short=1, long=10),
    lose_redis: times(short=1, long=10),
    lose_the_store: times(short=1, long=10),
    revoke_a_key: times(short=1, long=20),
}
"""How often each happens."""


async def test_whatever_fails_each_job_is_delivered_once_or_ended_once_and_nothing_is_bought_twice(
    yard: Yard, employ: Employ, account: Account, schedule: Schedule
) -> None:
    callers = JobCallers(yard, account, schedule)
    async with employ(count=WORKERS) as workers:
        broken = await broken_by(FAULTS, callers, workers)
    assert broken == [], "\n".join(broken)


CAUGHT: Mapping[str, tuple[Fault, str]] = {
    "takes-without-lock": (kill_a_worker, "too many running"),
    "sends-without-mark": (kill_a_worker, "bought"),
    "requeues-what-was-sent": (kill_a_worker, "was sent and became queued"),
    "gives-back-what-was-sent": (stop_a_worker, "was sent and became queued"),
}


@pytest.mark.skipif(not IS_LONG, reason="the defects that the fault test finds are tried with CHAOS=long")
@pytest.mark.parametrize("defect", CAUGHT)
async def test_a_worker_with_a_defect_is_caught(
    yard: Yard, employ: Employ, account: Account, schedule: Schedule, defect: str
) -> None:
    fault, sentence = CAUGHT[defect]
    async with employ(count=WORKERS, program=mutant(defect)) as workers:
        for _ in range(ROUNDS_MAX):
            callers = JobCallers(yard, account, schedule)
            broken = await broken_by({fault: 5}, callers, workers, pause_seconds_max=5)
            if any(sentence in each for each in broken):
                return
    raise AssertionError("not caught by more faults than the test above has")


async def test_a_server_that_counts_what_it_did_not_record_is_caught(yard: Yard, account: Account) -> None:
    key = await account.create_key()
    program = ("-m", "tests.chaos.mutants", "counts-what-was-admitted", "serve")
    async with yard.serve(program=program, workers=1) as fleet:
        lines = [Line(fleet.port, []) for _ in range(SAME_REQUESTS)]
        order = Order(PLAIN, job_class="now")
        calls = await asyncio.gather(*(line.ask(key, "same", order=order, idempotency_key="same") for line in lines))
        for line in lines:
            line.close()
    assert {call.code or call.outcome for call in calls} == {"accepted"}
    assert len({call.id for call in calls}) == 1
    assert any("lanes" in each for each in await yard.miscounted(account, [key]))
    await execute(yard.own, _CANCELLED, key.id)  # the tests behind this one wait for all that is unfinished
