"""What a worker does with jobs: takes them, draws them, keeps its leases, and gives back what it has not begun."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Literal

from app.catalogue.routing import RoutedRequest
from app.core.bell import JOBS
from app.core.errors import ApiError, Unavailable
from app.generations import run, settle
from app.generations.collaborators import Generations
from app.generations.errors import LeaseLostError
from app.generations.inputs import NO_INPUTS, resolve
from app.generations.jobs.job import Job, jobs_of
from app.generations.ledger.queue import ImageEnd
from app.generations.service import draw_request
from app.generations.spec import Caller
from app.providers.stub.rehearsal import is_rehearsal

CLASSES: Sequence[Literal["now", "batch"]] = ("now", "batch")
"""The first is taken up first."""


async def take(generations: Generations, *, jobs_max: int, account_most: int, key_most: int) -> Sequence[Job]:
    """At most `jobs_max` jobs that wait, of accounts in turn, which belong to this worker now.

    Raises Unavailable; what was taken all the same is somebody else's once its lease is over.
    """
    seconds = generations.lifetime.job_lease_seconds
    jobs: list[Job] = []
    for job_class in CLASSES:
        if len(jobs) < jobs_max:
            values = {"class": job_class, "jobs_max": jobs_max - len(jobs), "lease_seconds": seconds}
            rows = await generations.ledger.query("take_jobs", **values, account_most=account_most, key_most=key_most)
            jobs += jobs_of(rows, job_class=job_class, seconds=seconds)
    return jobs


async def draw(generations: Generations, job: Job) -> None:
    """Draws the job and settles it, whatever becomes of it, before its deadline. Before a provider is asked it is
    marked as sent; where it was cancelled by then, or its lease is over, nothing is drawn.

    Raises nothing but what the ledger cannot be told: then the sweep decides about the job.
    """
    record, deadline = job.record, asyncio.get_running_loop().time() + generations.lifetime.job_drawing_seconds
    try:
        routed = await _routed(generations, job, deadline)
    except ApiError as error:
        await settle.fail(generations, record, dict.fromkeys(job.ids, ImageEnd(error.code, tries=0, cost=0)))
    else:
        with suppress(ApiError):  # it is recorded, each image's with the image
            await run.draw_recorded(generations, routed, record, job.recorded, as_bytes=False)
    generations.bell.ring(*job.ids)


async def _routed(generations: Generations, job: Job, deadline: float) -> RoutedRequest:
    """The request as the catalogue has its model now. Raises what `OpenCatalogue.plan` and `inputs.resolve` raise."""
    spec, inputs = job.spec, NO_INPUTS
    plan = generations.catalogue.plan(
        *(spec.model, spec.size, spec.quality, spec.background, job.environment),
        references=len(spec.images),
        has_mask=spec.mask is not None,
    )
    if spec.images:
        caller = Caller(job.key_id, job.account_id, job.environment, 0)
        inputs = await resolve(generations, caller=caller, spec=spec, deadline=deadline)
    if job.environment == "test" and is_rehearsal(spec.prompt):
        plan = generations.catalogue.rehearsed(plan)
    plan = plan.in_turn(job.options.get("scope", job.id))
    request = draw_request(spec, plan, None, inputs)
    sending = _Sending(generations, job)
    before_keep = sending.hold if job.options.get("may_pay_twice") else None
    return RoutedRequest(plan, request, job.account_id, deadline, before_call=sending.mark, before_keep=before_keep)


class _Sending:
    """Marks a job as sent, once, before the first of its calls, and finds out whether it is still this worker's."""

    def __init__(self, generations: Generations, job: Job) -> None:
        self._generations = generations
        self._job = job
        self._marking: asyncio.Task[None] | None = None

    async def mark(self) -> None:
        """Raises Unavailable where it is not to be drawn."""
        if self._marking is None:
            marked = self._generations.ledger.mark_sent(self._job.ids, self._job.lease.token)
            self._marking = asyncio.create_task(marked)
        try:
            await asyncio.shield(self._marking)
        except LeaseLostError:
            raise Unavailable from None

    async def hold(self) -> None:
        """Raises Unavailable where another worker may draw the job by now: what it keeps has the same names."""
        if await renew(self._generations, [self._job]):
            raise Unavailable


async def renew(generations: Generations, jobs: Collection[Job]) -> Collection[str]:
    """Gives this worker more time for these jobs. Returns the ids of those that it has no more."""
    images = [(each, job.lease.token) for job in jobs for each in job.ids]
    rows = await generations.ledger.query(
        "renew_leases",
        id=[each for each, _ in images],
        lease=[lease for _, lease in images],
        lease_seconds=generations.lifetime.job_lease_seconds,
    )
    lost = {each["id"] for each in rows}
    return {job.id for job in jobs if lost.intersection(job.ids)}


async def give_back(generations: Generations, jobs: Collection[Job]) -> None:
    """Has those of these jobs wait again that were not sent, as if they had not been taken."""
    images = [(each, job) for job in jobs for each in job.ids]
    await generations.ledger.query(
        "give_back_jobs",
        id=[each for each, _ in images],
        lease=[job.lease.token for _, job in images],
        key_id=list({job.key_id for job in jobs}),
    )
    generations.bell.ring(JOBS)
