"""The worker: takes jobs as it has hands for them, and sees to it that none is drawn twice."""

import asyncio
from collections.abc import Collection
from contextlib import suppress

from app.core.bell import JOBS
from app.core.errors import ApiError
from app.core.logs import logger
from app.core.settings import Settings
from app.generations.collaborators import Generations
from app.generations.jobs import work
from app.generations.jobs.job import Job

_POLL_SECONDS = 1.0


class Worker:
    """Works on at most `jobs_at_a_time` jobs of the deployment, in this process. Any number may run, on any machine."""

    def __init__(self, generations: Generations, settings: Settings) -> None:
        self._generations = generations
        self._at_a_time = settings.jobs_at_a_time
        self._account_most = settings.jobs_per_account
        self._key_most = settings.generate_concurrency_per_key
        self._renew_seconds = settings.job_lease_seconds / 3
        self._running: dict[asyncio.Task[None], Job] = {}
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Works until it is cancelled; then no further job is taken."""
        with self._generations.bell.heard_by(self._hear):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_forever())
                group.create_task(self._renew_forever())

    async def stop(self, *, seconds: float) -> None:
        """Returns once all jobs of this worker have ended, or after so many seconds. Those that were not sent by then
        wait again for another worker; what was sent goes on until the process ends.
        """
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        if jobs := list(self._running.values()):
            with suppress(ApiError):
                await work.give_back(self._generations, jobs)

    def _hear(self, names: Collection[str]) -> None:
        if JOBS in names:
            self._woken.set()

    async def _take_forever(self) -> None:
        while True:
            free = self._at_a_time - len(self._running)
            taken = await self._take(free) if free > 0 else 0
            if taken == 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS):
                        await self._woken.wait()
            self._woken.clear()

    async def _take(self, free: int) -> int:
        try:
            jobs = await work.take(
                self._generations, jobs_max=free, account_most=self._account_most, key_most=self._key_most
            )
        except ApiError:
            logger.warning("jobs_not_taken", exc_info=True)
            return 0
        for job in jobs:
            task = asyncio.create_task(work.draw(self._generations, job))
            self._running[task] = job
            task.add_done_callback(self._ended)
        return len(jobs)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("job_failed", exc_info=error)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            if not self._running:
                continue
            with suppress(ApiError):
                lost = await work.renew(self._generations, list(self._running.values()))
                for task in [task for task, job in self._running.items() if job.id in lost]:
                    task.cancel()
