"""One job in the hands of a worker: planned as the catalogue is now, drawn, and settled; or left to others."""

import asyncio
import random
from typing import Literal

from app.catalogue.model import Route
from app.catalogue.routing import Plan, RoutedRequest
from app.core.errors import ApiError, Unavailable
from app.core.logs import logger
from app.generations import run, settle
from app.generations.collaborators import Generations
from app.generations.errors import LeaseLostError
from app.generations.inputs import delete_kept
from app.generations.jobs import work
from app.generations.jobs.job import Job
from app.generations.jobs.planning import plan_job
from app.generations.jobs.route_slots import RouteSlots
from app.generations.ledger.queue import ImageEnd
from app.providers import DrawRequest, NoFreeSlot, ProviderTimeout
from app.ratelimit import Limiter

_SLOT_SECONDS, _PAUSE_SECONDS = 10.0, 1.0
"""How long a job waits for a slot before it is given back, and how often it asks for one."""

_PROBE_SECONDS = 3.0
"""How long a job is kept whose images cannot be read: as often as a store that fails is probed."""


class JobDrawing:
    """A job that was just taken. It has JOB_DEADLINE_SECONDS from now on."""

    def __init__(self, generations: Generations, job: Job, limiter: Limiter) -> None:
        self.job = job
        self._loop = asyncio.get_running_loop()
        self._generations = generations
        lifetime = generations.lifetime
        self.deadline = self._loop.time() + lifetime.job_drawing_seconds
        self._settling_until = self.deadline + lifetime.job_lease_seconds
        self._slots = RouteSlots(limiter, seconds=lifetime.job_drawing_seconds + lifetime.job_lease_seconds)
        self._marking: asyncio.Task[None] | None = None
        self._is_left = False
        self.outcome = Unavailable.code
        """`delivered`, the code of an error, `given_back`, or `left`; once it has ended."""

    @property
    def is_sent(self) -> bool:
        """Whether it is marked as sent, or is being marked: it may have been handed to a provider."""
        return self._marking is not None

    def leave(self, outcome: Literal["left", "given_back"] = "left") -> None:
        """Has it not settled here, however it ends: others decide about it. It is to be cancelled then."""
        self._is_left, self.outcome = True, outcome

    async def draw(self) -> None:
        """Draws the job and settles it before its deadline, whatever becomes of it. Before a provider is asked it is
        marked as sent; where it was cancelled by then, its lease is over, or that cannot be known, nothing is drawn.

        While the store fails, or no route has a slot, it waits a little and is then given back. Raises nothing that is
        expected: where the ledger cannot be told of its end, the sweep decides about the job.
        """
        waiting_until = self._loop.time() + _SLOT_SECONDS
        try:
            async with asyncio.timeout_at(self.deadline):
                await settle.delete_earlier(self._generations, self.job.record)
                plan, request = await plan_job(self._generations, self.job, self.deadline)
            while not await self._was_drawn(plan, request):
                if self._loop.time() > waiting_until:
                    await self._give_back()
                    return
                await asyncio.sleep(_PAUSE_SECONDS * random.SystemRandom().uniform(0.75, 1.25))
        except Unavailable:  # the store, or the images that go in, cannot be read now
            await asyncio.sleep(_PROBE_SECONDS)  # else it would be taken again at once
            await self._give_back()
        except ApiError as error:
            await self._fail(error.code)
        except TimeoutError:
            await self._fail(ProviderTimeout.code)
        finally:
            await asyncio.shield(self._slots.release())
        self._generations.bell.ring(*self.job.ids)

    async def _was_drawn(self, plan: Plan, request: DrawRequest) -> bool:
        """Returns once the job has ended, or others decide about it; False where it has to wait."""
        generations, job = self._generations, self.job
        if not generations.store.takes_more:
            return False  # what cannot be kept is not bought
        routed = RoutedRequest(
            *(plan, request, job.account_id, self.deadline),
            before_call=self._before_call,
            is_left=self._is_left_after,
        )
        until = self._settling_until
        try:
            await run.draw_recorded(generations, routed, job.record, job.recorded, as_bytes=False, settling_until=until)
        except asyncio.CancelledError:
            if self._is_left:
                await asyncio.shield(self._forget())
            raise
        except ApiError as error:  # it is recorded, each image's with the image
            await self._slots.release()
            is_to_wait = self._is_left_after(error) and not self._is_left
            if not self._is_left and not is_to_wait:
                self.outcome = error.code
            return not is_to_wait
        self.outcome = "delivered"
        await delete_kept(generations, job.inputs)  # of what is not delivered the sweep deletes it
        return True

    def _is_left_after(self, error: BaseException) -> bool:
        return self._is_left or (isinstance(error, NoFreeSlot) and not self.is_sent)

    async def _before_call(self, route: Route) -> None:
        """Takes a slot of the route and marks the job as sent, each once. Raises NoFreeSlot, and Unavailable where it
        is not to be drawn.
        """
        await self._slots.take(route)
        if self._is_left:
            raise Unavailable
        if self._marking is None:
            self._marking = asyncio.create_task(self._generations.ledger.mark_sent(self.job.ids, self.job.lease.token))
            self._marking.add_done_callback(_take_exception)
        try:
            await asyncio.shield(self._marking)
        except (LeaseLostError, Unavailable):
            self.leave()  # it is somebody else's, or the sweep's
            raise Unavailable from None

    async def _forget(self) -> None:
        """Deletes what this attempt has kept, which nobody else does. Its settlement may have been cancelled: what was
        delivered by it stays, and so does what may be.
        """
        ids, lease = self.job.ids, self.job.lease.token
        try:
            rows = await self._generations.ledger.query("find_settled", id=ids, lease=[lease] * len(ids))
        except Unavailable:
            logger.warning("image_not_deleted", exc_info=True)  # `images verify` finds it
            return
        if not any(row["status"] in {"delivered", "processing"} for row in rows):
            await settle.forget_images(self._generations, self.job.record)

    async def _give_back(self) -> None:
        self.leave("given_back")
        try:
            await work.give_back(self._generations, [self.job])
        except Unavailable:
            logger.warning("jobs_not_given_back", exc_info=True)

    async def _fail(self, code: str) -> None:
        self.outcome = code
        ends = dict.fromkeys(self.job.ids, ImageEnd(code, tries=0, cost=0))
        await settle.fail(self._generations, self.job.record, ends)


def _take_exception(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # fetched, so that asyncio does not report it
