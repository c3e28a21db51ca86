"""What happens to workers, the server, and all that they need."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence

from tests.chaos.jobs.callers import JobCallers
from tests.chaos.jobs.hands import Hands
from tests.chaos.jobs.yard import Yard
from tests.chaos.proxy import Point
from tests.chaos.schedule import Schedule
from tests.standins.s3 import Fault as StoreFault

_STORE_FAULTS: Sequence[StoreFault] = ["internal_error", "slow_down", "reset"]
Fault = Callable[[Yard, Hands, JobCallers, Schedule], Awaitable[None]]


async def kill_a_worker(_yard: Yard, workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    workers.kill(schedule.pick(workers.running))
    workers.start()


async def kill_a_process_of_the_server(yard: Yard, _workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    await yard.fleet.whole()
    yard.fleet.kill(schedule.pick(yard.fleet.workers()))


async def freeze_a_process_of_the_server(yard: Yard, _workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    """For longer than the leases of what it draws."""
    await yard.fleet.whole()
    frozen = schedule.pick(yard.fleet.workers())
    yard.fleet.freeze(frozen)
    await asyncio.sleep(schedule.between(8, 10))
    yard.fleet.thaw(frozen)


async def cut_a_statement(yard: Yard, _workers: Hands, _callers: JobCallers, schedule: Schedule) -> None:
    """One that records or settles, before it arrives or once it is committed."""
    points: Sequence[Point] = ["request", "answer"]
    await yard.proxy.ambush(schedule.pick(points)).spring()


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
