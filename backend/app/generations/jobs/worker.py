"""The worker: takes jobs as it has hands for them, keeps its leases, and lets go of all of them when it is to stop."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress

from app.core.bell import JOBS
from app.core.cancellation import raise_if_cancelled
from app.core.draining import Draining
from app.core.errors import Unavailable
from app.core.logs import logger
from app.core.settings import Settings
from app.generations.collaborators import Generations
from app.generations.jobs import work
from app.generations.jobs.drawing import JobDrawing
from app.ratelimit import Limiter

_POLL_SECONDS = 1.0
_REST_SECONDS = 0.1
"""After lanes have given nothing, however often they are rung for."""
_SWEEP_SECONDS = 2.0
_jitter = random.SystemRandom()


@asynccontextmanager
async def working(
    generations: Generations,
    limiter: Limiter,
    settings: Settings,
    draining: Draining,
    *,
    drain_seconds: float | None,
) -> AsyncIterator[asyncio.Task[None] | None]:
    """Inside the `with` a worker works in this process, as the task that this returns, until `draining` says that jobs
    end; None where WORK is off. What was sent to a provider by then has `drain_seconds` to end, by default
    JOB_DEADLINE_SECONDS; leaving the `with` waits for it.
    """
    if not settings.work:
        yield None
        return
    worker = Worker(generations, limiter, settings)
    task = asyncio.create_task(worker.run(drain_seconds or settings.job_deadline_seconds))
    draining.when_jobs_end(worker.stop)
    try:
        yield task
    finally:
        worker.stop()
        await task


class Worker:
    """Works on at most `jobs_at_a_time` jobs of the deployment, in this process. Any number may run, on any machine."""

    def __init__(self, generations: Generations, limiter: Limiter, settings: Settings) -> None:
        self._generations = generations
        self._limiter = limiter
        self._at_a_time = settings.jobs_at_a_time
        self._account_most = settings.jobs_per_account
        self._key_most = settings.generate_concurrency_per_key
        self._renew_seconds = settings.job_lease_seconds / 3
        self._running: dict[asyncio.Task[None], JobDrawing] = {}
        self._metrics = generations.metrics.worker
        self._metrics.running.watch(lambda: len(self._running))
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._is_stopping = False

    async def run(self, drain_seconds: float) -> None:
        """Works until it is stopped. Then what was not sent is given back at once, for other workers, and what was sent
        is drawn to its end, for so long at most; after that, it ends as failed.
        """
        with self._generations.bell.heard_by(self._hear):
            keeping = [
                asyncio.create_task(_repeat(self._renew, self._renew_seconds)),
                asyncio.create_task(_repeat(self._sweep, _SWEEP_SECONDS)),
            ]
            await self._take_until_stopped()
            await self._drain(drain_seconds)
            for each in keeping:
                each.cancel()
            await asyncio.wait(keeping)

    def stop(self) -> None:
        """Has `run` end; from any thread, or within a handler of signals."""
        self._is_stopping = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    def _hear(self, names: Collection[str]) -> None:
        if JOBS in names:
            self._woken.set()

    async def _take_until_stopped(self) -> None:
        while not self._is_stopping:
            free = self._at_a_time - len(self._running)
            may_take = free > 0 and self._generations.store.takes_more
            if not may_take or not await _succeeds(self._take, free):
                if may_take:
                    await asyncio.sleep(_REST_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS * _jitter.uniform(0.75, 1.25)):
                        await self._woken.wait()
            self._woken.clear()

    async def _take(self, free: int) -> bool:
        """Begins with at most so many jobs. Returns whether there were any."""
        jobs = await work.take(
            self._generations, jobs_max=free, account_most=self._account_most, key_most=self._key_most
        )
        self._metrics.taken.add(number=len(jobs))
        for job in jobs:
            drawing = JobDrawing(self._generations, job, self._limiter)
            task = asyncio.create_task(drawing.draw())
            self._running[task] = drawing
            task.add_done_callback(self._ended)
        return bool(jobs)

    def _ended(self, task: asyncio.Task[None]) -> None:
        drawing = self._running.pop(task)
        self._metrics.ended.add(drawing.outcome)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("job_failed", exc_info=error)

    async def _renew(self) -> None:
        """Renews the leases, but of what has outlived its deadline; what has lost its lease is drawn no further."""
        late = self._loop.time() - self._generations.lifetime.job_lease_seconds
        held = [(task, each) for task, each in self._running.items() if each.deadline > late]
        if held:
            lost = await work.renew(self._generations, [each.job for _, each in held])
            self._metrics.leases_renewed.add(number=len(held) - len(lost))
            for task, each in held:
                if each.job.id in lost and not task.done():
                    self._metrics.leases_lost.add()
                    logger.warning("job_lease_lost", generation=each.job.id)
                    each.leave()
                    task.cancel()

    async def _sweep(self) -> None:
        await work.sweep(self._generations)

    async def _drain(self, seconds: float) -> None:
        unsent = {task: each for task, each in self._running.items() if not each.is_sent}
        for task, each in unsent.items():
            each.leave("given_back")
            task.cancel()
        if unsent:
            await _succeeds(work.give_back, self._generations, [each.job for each in unsent.values()])
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        for task in self._running:
            task.cancel()  # it settles the job as failed
        if self._running:
            await asyncio.wait(self._running)


async def _repeat(what: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Does this about every so many seconds, not in step with other workers, until it is cancelled."""
    while True:
        await asyncio.sleep(seconds * _jitter.uniform(0.75, 1.25))
        await _succeeds(what)
        raise_if_cancelled()


async def _succeeds(what: Callable[..., Awaitable[object]], *values: object) -> bool:
    """Whether this returns something true. What it raises is logged, and ends no worker: it is done again later."""
    try:
        return bool(await what(*values))
    except Unavailable:
        logger.warning("worker_hindered", exc_info=True)
    except Exception:
        logger.exception("worker_failed")
    return False
