"""Pictures that were delivered: looked at, kept for as long as they are, and swept."""

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update

from app.core.db import trouble
from app.core.errors import ApiError, NotFound
from app.core.images import MEDIA_TYPES, ImageFormat
from app.core.logs import logger
from app.core.security import is_id, time_prefix
from app.core.web.immutable import Elsewhere, Part, part_of
from app.features.generate.drawing import draw
from app.features.generate.service import SHOWN
from app.features.generate.studio import Studio, Wish, name_of
from app.models import Generation
from app.providers import Size

_SWEEP_SECONDS = 60
_AT_A_TIME = 100


class ImageNotFound(NotFound):
    code, detail = "image_not_found", "There is no such image"


async def find_delivered(studio: Studio, *, generation_id: str, picture_format: str) -> Generation:
    """The generation whose picture may be looked at. Raises ImageNotFound for any other id or format."""
    if not is_id("gen", generation_id):
        raise ImageNotFound
    async with studio.sessions.begin() as session:
        generation = await session.scalar(select(Generation).where(Generation.id == generation_id, *SHOWN))
    if generation is None or generation.format != picture_format:
        raise ImageNotFound
    return generation


async def open_part(studio: Studio, generation: Generation, start: int, end: int | None) -> Part:
    """A delivered generation's picture from `start` up to and not including `end`: drawn, the same bytes every time, or
    as it is kept.

    Raises ImageNotFound where it is gone, and Unavailable when too much waits or the store cannot be reached.
    """
    media_type = MEDIA_TYPES[generation.format]
    if generation.provider == studio.providers["test"].name:
        return part_of(await _draw(studio, generation), media_type, start, end)
    stored = await studio.store.get(name_of(generation.id, generation.format), start=start, end=end)
    if stored is None:
        raise ImageNotFound
    return Part(media_type, stored.size, stored.start, stored.end, stored.chunks)


async def find_elsewhere(studio: Studio, generation: Generation) -> Elsewhere | None:
    """Where callers are to be led for a delivered generation's picture, if not here."""
    if generation.provider == studio.providers["test"].name:
        return None
    address = await studio.store.address(name_of(generation.id, generation.format))
    return None if address is None else Elsewhere(address.url, address.seconds)


async def read(studio: Studio, *, generation_id: str, picture_format: ImageFormat) -> bytes:
    """The whole picture of a delivered generation. Raises what `find_delivered` and `open_part` raise."""
    generation = await find_delivered(studio, generation_id=generation_id, picture_format=picture_format)
    part = await open_part(studio, generation, 0, None)
    return b"".join([chunk async for chunk in part.chunks])


async def _draw(studio: Studio, generation: Generation) -> bytes:
    width, _, height = generation.size.partition("x")
    wish = Wish(generation.prompt, Size(int(width), int(height)), generation.format)
    return await draw(studio, studio.providers["test"], wish, deadline=math.inf)


@dataclass(frozen=True)
class Sweeper:
    """Forgets what nobody can ask for any more: pictures of requests that were given up, and old ones.

    Safe in any number of processes at once; what fails is done the next time.
    """

    studio: Studio
    lease_seconds: float
    retention_days: int | None

    async def run(self) -> None:
        """Sweeps every minute until it is cancelled."""
        while True:
            try:
                await self.sweep()
            except Exception as error:
                if trouble(error) is None and not isinstance(error, ApiError):
                    raise
                logger.warning("sweep_failed", exc_info=True)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Gives up requests whose lease is over, and deletes the pictures of those that failed, and of long ago."""
        await self._give_up_lapsed()
        await self._forget(Generation.status.in_(("lost", "failed")))
        if self.retention_days is not None:
            old = time_prefix("gen", datetime.now(UTC) - timedelta(days=self.retention_days))
            await self._forget(Generation.status == "delivered", Generation.id < old)

    async def _give_up_lapsed(self) -> None:
        """The row's status decides between this and a late settle; only then is the picture nobody's."""
        lapsed = Generation.created_at < func.now() - timedelta(seconds=self.lease_seconds)
        processing = Generation.status == "processing", Generation.deleted_at.is_(None)
        async with self.studio.sessions.begin() as session:
            await session.execute(update(Generation).where(*processing, lapsed).values(status="lost"))

    async def _forget(self, *which: ColumnElement[bool]) -> None:
        """Marked as deleted only after they are: what fails or crashes between is deleted again."""
        kept = Generation.provider != self.studio.providers["test"].name, Generation.deleted_at.is_(None)
        some = select(Generation.id, Generation.format).where(*kept, *which).limit(_AT_A_TIME)
        while True:
            async with self.studio.sessions.begin() as session:
                found = (await session.execute(some)).all()
            for generation_id, picture_format in found:
                await self.studio.store.delete(name_of(generation_id, picture_format))
            ids = [generation_id for generation_id, _ in found]
            async with self.studio.sessions.begin() as session:
                await session.execute(update(Generation).where(Generation.id.in_(ids)).values(deleted_at=func.now()))
            if len(found) < _AT_A_TIME:
                return
