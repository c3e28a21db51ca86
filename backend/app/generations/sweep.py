"""What is looked after beside the requests: images that no client can ask for any more, and partitions to come."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.db import classify_database_error
from app.core.errors import ApiError
from app.core.logs import logger
from app.core.security import time_prefix
from app.generations.collaborators import Generations
from app.generations.partitions import ensure_partitions
from app.generations.thumbnails import delete_with_thumbnails
from app.models import Generation

_SWEEP_SECONDS = 60
_AT_A_TIME = 100


@dataclass(frozen=True)
class Sweeper:
    """Deletes the images of generations that failed, were lost, or are older than `retention_days`, and makes the
    partitions of the months to come. (Generations whose lease is over are marked as lost by the ledger.)

    Safe in any number of processes at once; what fails is done by the next sweep.
    """

    generations: Generations
    engine: AsyncEngine
    retention_days: int | None

    async def run(self) -> None:
        """Sweeps every minute until it is cancelled."""
        while True:
            try:
                await self.sweep()
            except Exception as error:
                if classify_database_error(error) is None and not isinstance(error, ApiError):
                    raise
                logger.warning("sweep_failed", exc_info=True)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """One turn. Ages go by the database's clock."""
        async with self.engine.connect() as connection:
            await ensure_partitions(connection)
        await self._forget(Generation.status.in_(("lost", "failed", "cancelled")))
        if self.retention_days is not None:
            async with self.generations.sessions.begin() as session:
                now = (await session.execute(select(func.now()))).scalar_one()
            oldest_kept = time_prefix("gen", now - timedelta(days=self.retention_days))
            await self._forget(Generation.status == "delivered", Generation.id < oldest_kept)

    async def _forget(self, *which: ColumnElement[bool]) -> None:
        """Deletes images, then marks them as deleted: what fails or crashes between is deleted again."""
        kept = Generation.provider != "stub", Generation.deleted_at.is_(None)
        some = select(Generation.id, Generation.format).where(*kept, *which).limit(_AT_A_TIME)
        while True:
            async with self.generations.sessions.begin() as session:
                found = (await session.execute(some)).all()
            for generation_id, image_format in found:
                await delete_with_thumbnails(self.generations, generation_id, image_format)
            await self._mark_deleted([generation_id for generation_id, _ in found])
            if len(found) < _AT_A_TIME:
                return

    async def _mark_deleted(self, ids: list[str]) -> None:
        """Waits for no other transaction: what one of them holds is marked by the next sweep."""
        unlocked = select(Generation.id).where(Generation.id.in_(ids)).order_by(Generation.id)
        free = unlocked.with_for_update(skip_locked=True, key_share=True)
        async with self.generations.sessions.begin() as session:
            marked = update(Generation).where(Generation.id.in_(free)).values(deleted_at=func.now())
            await session.execute(marked)
