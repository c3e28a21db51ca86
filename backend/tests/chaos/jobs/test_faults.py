"""Faults under jobs and calls: each is delivered once, or ended once and its caller can read why; counts are exact."""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping

from tests.chaos.jobs.callers import Asked, JobCallers
from tests.chaos.jobs.conftest import Employ
from tests.chaos.jobs.hands import Hands
from tests.chaos.jobs.provider import CountingProvider
from tests.chaos.jobs.trail import Image, images_of, long_waits, wrong_steps
from tests.chaos.jobs.yard import Yard
from tests.chaos.schedule import Schedule, times
from tests.harness import Account

CALLERS, WORKERS = 8, 3
Fault = Callable[[Yard, Hands, JobCallers, Schedule], Awaitable[None]]


async def kill_a_worker(_yard: Yard, workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    workers.kill(schedule.pick(workers.running))
    workers.start()


async def kill_a_process_of_the_server(yard: Yard, _workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    await yard.fleet.whole()
    yard.fleet.kill(schedule.pick(yard.fleet.workers()))


async def stop_a_worker(_yard: Yard, workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    worker = schedule.pick(workers.running)
    workers.start()
    assert await workers.stop(worker) in {0, 128 + signal.SIGTERM, -signal.SIGTERM}


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
    yard.bucket.fail(schedule.pick(["internal_error", "reset"]), times=100_000)
    await asyncio.sleep(schedule.between(0.5, 2))
    yard.bucket.recover()


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
    faults = [fault for fault, count in FAULTS.items() for _ in range(count)]
    started = time.monotonic()
    async with employ(count=WORKERS) as workers:
        async with callers.calling(CALLERS):
            await asyncio.sleep(2)
            while faults:
                await asyncio.sleep(schedule.between(0.2, 1))
                fault = schedule.pick(faults)
                faults.remove(fault)
                await fault(yard, workers, callers, schedule)
        await yard.until_all_ended()
        connection = await yard.own.connect()
        images = await images_of(connection, [key.id for key in callers.keys])
        await connection.close()
        tell(images, callers, time.monotonic() - started)
        assert list(wrong_steps(images)) == []
        assert list(long_waits(images, yard.outages)) == []
        assert list(wrongly_ended(images, callers.journal, yard.provider)) == []
        assert await yard.miscounted(callers.keys) == []
        workers.start()  # a worker sweeps when it starts
        assert await yard.until_swept() == []


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
            yield f"{asked.prompt}: what was refused is delivered, or will be"
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
