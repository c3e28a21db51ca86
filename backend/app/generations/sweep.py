"""What is looked after beside the requests: images that no client can ask for any more, and partitions to come."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.logs import logger
from app.core.metrics import Metrics
from app.core.repeating import repeat
from app.core.security import time_prefix
from app.generations import erase, uploads
from app.generations.collaborators import Generations
from app.generations.deletion_failures import DeletionFailures
from app.generations.jobs.overview import find_classes
from app.generations.kept import OWNED
from app.generations.partitions import UNPRUNED, ensure_partitions
from app.generations.records import UNDELIVERED
from app.generations.spec import names_of_attempts
from app.generations.thumbnails import delete_with_thumbnails
from app.models import Generation
from app.storage import StoreUnavailable

_SWEEP_SECONDS = 60
_COUNT_SECONDS = 15
_AT_A_TIME = 100
_OVERDUE_MAX = 100
_DAY = timedelta(days=1)
_UNDELIVERED = Generation.status.in_(UNDELIVERED)
_NOT_KEPT = or_(Generation.expires_at.is_(None), Generation.expires_at < func.now() - _DAY)
"""An asynchronous generation that was not delivered can be had again by an operator, until a day after it expired."""
_LEFT_BY_WORKERS = _UNDELIVERED, Generation.expires_at.is_not(None), Generation.lease.is_not(None)
"""Such a generation whose workers may have kept images that nobody has deleted yet."""


@dataclass
class Sweeper:
    """Deletes the images and prompts of generations that failed or were lost (prompts of asynchronous ones a day later,
    since these can be requeued), images that are older than `retention_days`, and uploads that have expired; erases
    what deleted accounts have left, and makes the partitions of the months to come. (What is past its lease the ledger
    ends.)

    While it runs, an image is deleted within minutes of its last day. So if more than 100 are older than that by a day,
    something is wrong: the database's clock, or `retention_days`, or no sweep has run for long. Then none is deleted
    for its age, until an operator has deleted them with `nanobanana images expire`.

    Safe in any number of processes at once; what fails is done by the next sweep.
    """

    generations: Generations
    engine: AsyncEngine
    retention_days: int | None
    metrics: Metrics
    _is_stopped: bool = False

    async def run(self) -> None:
        """Sweeps every minute until it is cancelled; beside that it erases, which may take long, and counts jobs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(repeat(self.sweep, seconds=_SWEEP_SECONDS, task="sweep"))
            group.create_task(repeat(self.erase, seconds=_SWEEP_SECONDS, task="erase"))
            group.create_task(repeat(self.count, seconds=_COUNT_SECONDS, task="count_jobs"))

    async def erase(self) -> None:
        """Erases what deleted accounts have left and no other process is erasing."""
        failure: StoreUnavailable | None = None
        while (account_id := await erase.take_up(self.generations)) is not None:
            try:
                await erase.erase(self.generations, account_id=account_id)
            except StoreUnavailable as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def count(self) -> None:
        """Shows how many jobs there are."""
        async with self.generations.sessions.begin() as session:
            classes = await find_classes(session)
        jobs = self.metrics.jobs
        for each in classes:
            jobs.waiting.set(each.waiting, each.job_class)
            jobs.running.set(each.running, each.job_class)
            jobs.oldest_seconds.set(each.oldest_seconds, each.job_class)

    async def sweep(self) -> None:
        """One turn. Ages go by the database's clock. Raises StoreUnavailable for what could not be deleted, once all
        else is done.
        """
        async with self.engine.connect() as connection:
            await ensure_partitions(connection)
        failure: StoreUnavailable | None = None
        for delete in (
            partial(delete_images, self.generations, _UNDELIVERED, _NOT_KEPT),
            partial(_delete_left_by_workers, self.generations),
            partial(uploads.sweep, self.generations),
            self._expire_if_plausible,
        ):
            try:
                await delete()
            except StoreUnavailable as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def _expire_if_plausible(self) -> None:
        if self.retention_days is not None and await self._is_plausible():
            await self.expire()

    async def expire(self) -> None:
        """Deletes all images that are older than `retention_days`, however many they are."""
        await delete_images(self.generations, *await self._older_than())

    async def count_old(self, *, longer_by: timedelta = timedelta(0), most: int | None = None) -> int:
        """How many images are older than `retention_days`, by a time; counts up to `most`."""
        old = select(Generation.id).where(*OWNED, *await self._older_than(longer_by)).limit(most).subquery()
        async with self.generations.sessions.begin() as session:
            return await session.scalar(select(func.count()).select_from(old)) or 0

    async def _is_plausible(self) -> bool:
        """Whether images may be deleted for their age. Counts each turn in which they may not, and logs the first."""
        overdue = await self.count_old(longer_by=_DAY, most=_OVERDUE_MAX + 1)
        was_stopped, self._is_stopped = self._is_stopped, overdue > _OVERDUE_MAX
        if self._is_stopped:
            self.metrics.pools.sweeps_stopped.add()
            if not was_stopped:
                logger.error("sweep_stopped", overdue_more_than=_OVERDUE_MAX, retention_days=self.retention_days)
        return not self._is_stopped

    async def _older_than(self, longer_by: timedelta = timedelta(0)) -> Sequence[ColumnElement[bool]]:
        """Delivered images that are older than `retention_days` by a time."""
        async with self.generations.sessions.begin() as session:
            now = (await session.execute(select(func.now()))).scalar_one()
        oldest_kept = now - timedelta(days=self.retention_days or 0) - longer_by
        # The ids are what is indexed. They may begin with a wrong time, if a process did not know the database's.
        is_old = Generation.id < time_prefix("gen", oldest_kept), Generation.created_at < oldest_kept
        return Generation.status == "delivered", *is_old


async def delete_images(generations: Generations, *which: ColumnElement[bool]) -> None:
    """Deletes the images of these generations, and marks them as deleted, which erases their prompts: some at a time,
    the image before the mark, so that what fails or crashes between is deleted again.
    """
    await _delete(generations, which, partial(delete_with_thumbnails, generations), {"deleted_at": func.now()})


async def _delete_left_by_workers(generations: Generations) -> None:
    """The same, but that their generations can be requeued. Nobody was shown these images: they have no thumbnails."""

    async def delete_originals(*image: Any) -> None:
        for name in names_of_attempts(*image):
            await generations.store.delete(name)

    await _delete(generations, _LEFT_BY_WORKERS, delete_originals, {"lease": None})


async def _delete(
    generations: Generations,
    which: Sequence[ColumnElement[bool]],
    delete: Callable[..., Awaitable[None]],
    mark: Mapping[str, Any],
) -> None:
    """Calls `delete` with each generation's id, format and attempts, before it marks those that are still such. Raises
    StoreUnavailable for those that could not be deleted, once all others are.
    """
    some = select(Generation.id, Generation.format, Generation.attempts).where(*OWNED, *which).limit(_AT_A_TIME)
    failures, is_last = DeletionFailures(), False
    while not (is_last or failures.are_many):
        async with generations.sessions.begin() as session:
            found = (await session.execute(some.where(Generation.id.not_in(failures.ids)))).all()
        deleted = [
            each.id for each in found if not failures.are_many and await failures.deletes(each.id, delete(*each))
        ]
        await _mark(generations, deleted, which, mark)
        is_last = len(found) < _AT_A_TIME
    failures.raise_first()


async def _mark(
    generations: Generations, ids: list[str], which: Sequence[ColumnElement[bool]], mark: Mapping[str, Any]
) -> None:
    """Waits for no other transaction: what one of them holds is marked by the next sweep."""
    unlocked = select(Generation.id).where(Generation.id.in_(ids), *which).order_by(Generation.id)
    free = unlocked.with_for_update(skip_locked=True, key_share=True)
    async with generations.sessions.begin() as session:
        await session.execute(UNPRUNED)
        await session.execute(update(Generation).where(Generation.id.in_(free)).values(mark))
