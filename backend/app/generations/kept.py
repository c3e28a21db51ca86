"""The images that the ledger says are kept: of delivered generations, not drawn by the stub and not deleted."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple

from sqlalchemy import func, select

from app.core.db import SessionMaker
from app.core.images import ImageFormat
from app.generations.records import SHOWN
from app.generations.spec import image_name
from app.generations.thumbnails import names_of_thumbnails
from app.models import Generation

OWNED = Generation.provider != "stub", Generation.deleted_at.is_(None)
"""What a generation must be for files in the store to be its own: the image, and the smaller copies made from it. While
it is drawn, and until the sweeper has deleted what is left of a failed one, it is not delivered.
"""

_ROWS = 1000


class KeptImage(NamedTuple):
    """An image that should be in the store."""

    id: str
    format: ImageFormat

    @property
    def name(self) -> str:
        return image_name(self.id, self.format)


async def pages_of_kept(
    sessions: SessionMaker, *, first: str = "", end: str = "~"
) -> AsyncIterator[Sequence[KeptImage]]:
    """All images whose ids are from `first` up to and not including `end`, in their order, some at a time, each page in
    a transaction of its own.
    """
    wanted = select(Generation.id, Generation.format).where(*SHOWN, *OWNED, Generation.id < end)
    is_next = Generation.id >= first
    while True:
        async with sessions.begin() as session:
            rows = (await session.execute(wanted.where(is_next).order_by(Generation.id).limit(_ROWS))).all()
        yield [KeptImage(*row) for row in rows]
        if len(rows) < _ROWS:
            return
        is_next = Generation.id > rows[-1].id


async def still_kept(sessions: SessionMaker, names: Collection[str], *, retention_days: int | None = None) -> set[str]:
    """Those of the names of images that are kept now, and not due to be deleted for their age."""
    wanted = select(Generation.id, Generation.format).where(Generation.id.in_(map(_id_of, names)), *SHOWN, *OWNED)
    if retention_days is not None:
        wanted = wanted.where(Generation.created_at > func.now() - func.make_interval(0, 0, 0, retention_days))
    async with sessions.begin() as session:
        return {KeptImage(*row).name for row in await session.execute(wanted)}


async def owned_names(sessions: SessionMaker, names: Collection[str]) -> set[str]:
    """The names of the files that the generations of these names may have in the store, copies included."""
    ids = {_id_of(name) for name in names}
    wanted = select(Generation.id, Generation.format).where(Generation.id.in_(ids), *OWNED)
    async with sessions.begin() as session:
        images = [KeptImage(*row) for row in await session.execute(wanted)]
    return {name for each in images for name in (each.name, *names_of_thumbnails(each.name, each.format))}


async def deleted_names(sessions: SessionMaker, names: Collection[str]) -> set[str]:
    """Those of the names of files whose image was deleted."""
    ids = {_id_of(name) for name in names}
    wanted = select(Generation.id).where(Generation.id.in_(ids), Generation.deleted_at.is_not(None))
    async with sessions.begin() as session:
        deleted = set(await session.scalars(wanted))
    return {name for name in names if _id_of(name) in deleted}


def _id_of(name: str) -> str:
    return name.partition(".")[0]
