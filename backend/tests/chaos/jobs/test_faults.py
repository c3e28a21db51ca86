"""Faults under jobs and calls: each is delivered once, or ended once and its caller can read why; counts are exact."""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import pytest
from tests.chaos.jobs.callers import Asked, JobCallers
from tests.chaos.jobs.conftest import Employ
from tests.chaos.jobs.hands import Hands, mutant
from tests.chaos.jobs.provider import PLAIN, CountingProvider
from tests.chaos.jobs.trail import Image, images_of, long_waits, taken_after_revocation, wrong_steps
from tests.chaos.jobs.yard import Yard, execute
from tests.chaos.load import Line, Order
from tests.chaos.schedule import IS_LONG, Schedule, times
from tests.harness import Account
from tests.standins.s3 import Fault as StoreFault

CALLERS, WORKERS = 8, 3
SAME_REQUESTS = 8
NEVER = ("40P01", "55P03")
"""What PostgreSQL never says: deadlock, and that a lock was waited for too long."""
READ_MAX = 200
_UNDISTURBED_SECONDS = 2
_CANCELLED = "update generations set status = 'cancelled', lease_until = null where key_id = $1"
_STORE_FAULTS: Sequence[StoreFault] = ["internal_error", "slow_down", "reset"]
Fault = Callable[[Yard, Hands, JobCallers, Schedule], Awaitable[None]]


async def kill_a_worker(_yard: Yard, workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    workers.kill(schedule.pick(workers.running))
    workers.start()


async def kill_a_process_of_the_server(yard: Yard, _workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    await yard.fleet.whole()
    yard.fleet.kill(schedule.pick(yard.fleet.workers()))


async def stop_a_worker(_yard: Yard, workers: Hands, _callers: JobCallers, _schedule: Schedule) -> None:
    """The one that has run longest. Where it is still starting, the signal ends it."""
    worker = workers.running[0]
    workers.start()
    assert await workers.stop(worker) in {128 + signal.SIGTERM, -signal.SIGTERM}


async def freeze_a_worker(_yard: Yard, workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    worker = schedule.pick(workers.running)
    workers.freeze(worker)
    await asyncio.sleep(schedule.between(0.5, 5))
    workers.thaw(worker)


async def stop_the_database_at_once(yard: Yard, _workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    await yard.stop_the_database_at_once(seconds=schedule.between(0, 1))


async def lose_redis(yard: Yard, _workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    yard.redis.stop()
    await asyncio.sleep(schedule.between(0, 1))
    yard.redis.start()


async def lose_the_store(yard: Yard, _workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    await yard.lose_the_store(schedule.pick(_STORE_FAULTS), seconds=schedule.between(0.5, 2))


async def revoke_a_key(_yard: Yard, _workers: Hands, callers: JobCallers, _schedule: Schedule) -> None:
    await callers.revoke_a_key()


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
        assert await broken_by(FAULTS, callers, workers) == []


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
    callers = JobCallers(yard, account, schedule)
    async with employ(count=WORKERS, program=mutant(defect)) as workers:
        broken = await broken_by({fault: 5}, callers, workers, pause_seconds_max=5)
    assert any(sentence in each for each in broken), broken


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


async def broken_by(
    faults: Mapping[Fault, int], callers: JobCallers, workers: Hands, *, pause_seconds_max: float = 1
) -> Sequence[str]:
    """What is broken after so many faults of each kind, in an order by chance, as sentences."""
    yard, schedule, started = callers.yard, callers.schedule, time.monotonic()
    before = {each: yard.cluster.logged(each) for each in NEVER}
    to_come = [fault for fault, count in faults.items() for _ in range(count)]
    async with callers.calling(CALLERS):
        await asyncio.sleep(_UNDISTURBED_SECONDS)
        while to_come:
            await asyncio.sleep(schedule.between(0.2, pause_seconds_max))
            fault = schedule.pick(to_come)
            to_come.remove(fault)
            workers.replace_ended()
            await fault(yard, workers, callers, schedule)
    workers.replace_ended()
    await yard.until_all_ended()
    connection = await yard.own.connect()
    images = await images_of(connection, [key.id for key in callers.keys])
    await connection.close()
    tell(images, callers, time.monotonic() - started)
    workers.start()  # a worker sweeps when it starts
    return [
        *wrong_steps(images),
        *taken_after_revocation(images),
        *long_waits(images, yard.outages),
        *wrongly_ended(images, callers.journal, yard.provider),
        *await unreadable(images, callers),
        *await yard.miscounted(callers.account, callers.keys),
        *await yard.until_swept(callers.account),
        *(f"{yard.cluster.logged(each)} errors {each}" for each in NEVER if yard.cluster.logged(each) > before[each]),
    ]


async def unreadable(images: Mapping[str, Image], callers: JobCallers) -> Sequence[str]:
    """The requests of whose end their callers cannot read, as sentences: all that failed, and some that did not."""
    key = await callers.account.create_key()
    jobs: dict[str, list[str]] = {}
    for name, image in images.items():
        if image.is_job:
            jobs.setdefault(image.request_id, []).append(name)
    found = []
    for request_id in sorted(jobs, key=lambda each: images[each].status == "delivered")[:READ_MAX]:
        answer = await callers.yard.client.get(f"/v1/generations/{request_id}", headers=key.headers)
        shown = answer.json()
        statuses = {each["id"]: each["status"] for each in shown.get("outputs", [])}
        if statuses != {each: images[each].status for each in jobs[request_id]}:
            found.append(f"{request_id} is shown as {statuses}")
        if (shown.get("status") == "delivered") != (shown.get("error") is None):
            found.append(f"{request_id} is {shown.get('status')} and has {shown.get('error')}")
    return found


def wrongly_ended(images: Mapping[str, Image], journal: Iterable[Asked], provider: CountingProvider) -> Iterable[str]:
    """What callers were told against what is recorded and was bought, as sentences."""
    by_prompt: dict[str, dict[str, Image]] = {}
    for name, image in images.items():
        by_prompt.setdefault(image.prompt, {})[name] = image
    for asked in journal:
        mine = by_prompt.pop(asked.prompt, {})
        requests = {image.request_id for image in mine.values()}
        delivered = {image.request_id for image in mine.values() if image.status == "delivered"}
        if not asked.ids <= set(mine):
            yield f"{asked.prompt}: what was accepted is not recorded"
        if len(delivered) > 1:
            yield f"{asked.prompt}: {len(delivered)} requests are delivered for one"
        if len(requests) > 1 and not asked.kind.is_repeated:
            yield f"{asked.prompt}: {len(requests)} requests for one"
        if asked.is_certain and not asked.ids and (delivered or any(image.is_job for image in mine.values())):
            yield f"{asked.prompt}: what was refused is recorded ({asked.kind})"
        sends = sum(image.sends for image in mine.values())
        drawn = sum(image.status == "delivered" for image in mine.values())
        if not drawn <= provider.calls[asked.prompt] <= sends:
            yield f"{asked.prompt}: bought {provider.calls[asked.prompt]} times, sent {sends}, delivered {drawn}"
    if by_prompt:
        yield f"nobody asked for {sorted(by_prompt)}"


def tell(images: Mapping[str, Image], callers: JobCallers, seconds: float) -> None:
    ends = Counter(f"{'job' if image.is_job else 'call'} {image.status}" for image in images.values())
    answers = Counter(call.code or str(call.status) for call in callers.calls)
    sys.stdout.write(
        f"{seconds:.0f} s, answers: {dict(sorted(answers.items()))}, images: {dict(sorted(ends.items()))}\n"
    )
