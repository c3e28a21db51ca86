"""What a worker asks of the ledger: jobs, more time for them, and to have others draw what it will not."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

from app.core.bell import JOBS
from app.generations.collaborators import Generations
from app.generations.jobs.job import Job, jobs_of
from app.generations.ledger.writer import ATTEMPTS_MAX

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


async def renew(generations: Generations, jobs: Collection[Job]) -> Collection[str]:
    """Gives this worker more time for these jobs. Returns the ids of those that it has no more. Raises Unavailable."""
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
    """Has those of these jobs wait again that were not sent, as if they had not been taken. Raises Unavailable; then
    the sweep has them wait again once their leases are over.
    """
    images = [(each, job) for job in jobs for each in job.ids]
    await generations.ledger.query(
        "give_back_jobs",
        id=[each for each, _ in images],
        lease=[job.lease.token for _, job in images],
        key_id=list({job.key_id for job in jobs}),
    )
    generations.bell.ring(JOBS)


async def sweep(generations: Generations) -> None:
    """Decides about some of the jobs whose time is over, whichever worker had them. Raises Unavailable."""
    rows = await generations.ledger.query("sweep_jobs", attempts_max=ATTEMPTS_MAX)
    if rows:
        note_swept(generations, rows)


def note_swept(generations: Generations, rows: Sequence[Any]) -> None:
    """Wakes those who wait for these images, about which a sweep has decided, and counts what has ended."""
    generations.bell.ring(JOBS, *(each["id"] for each in rows))
    for each in rows:
        if each["error"] is not None:
            generations.metrics.jobs.ended.add(each["error"])
