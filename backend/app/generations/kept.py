"""The images that the database says are kept: of delivered generations, not drawn by the stub and not deleted, and
uploads.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal, select

from app.core.db import SessionMaker
from app.core.images import ImageFormat
from app.generations.records import SHOWN
from app.generations.spec import image_name
from app.generations.thumbnails import names_of_thumbnails
from app.models import Generation, Upload

OWNED = Generation.provider != "stub", Generation.deleted_at.is_(None)
"""What a generation must be for files in the store to be its own: the image, and the smaller copies made from it. While
it is drawn, and until the sweeper has deleted what is left of a failed one, it is not delivered.
"""

_KEPT: Sequence[tuple[type[Generation | Upload], Sequence[ColumnElement[bool]]]] = (
    (Generation, (*SHOWN, *OWNED)),
    (Upload, (Upload.is_stored.is_(True),)),
)
"""The rows whose images should be in the store, in the order of their ids."""

_ROWS = 1000


class KeptImage(NamedTuple):
    """An image that should be in the store."""

    id: str
    format: ImageFormat
    attempts: int

    @property
    def name(self) -> str:
        return image_name(self.id, self.format, self.attempts)


async def pages_of_kept(
    sessions: SessionMaker, *, first: str = "", end: str = "~"
) -> AsyncIterator[Sequence[KeptImage]]:
    """All images whose ids are from `first` up to and not including `end`, in their order, some at a time, each page in
    a transaction of its own.
    """
    for table, conditions in _KEPT:
        wanted = _select(table).where(*conditions, table.id < end).order_by(table.id).limit(_ROWS)
        is_next = table.id >= first
        while True:
            async with sessions.begin() as session:
                rows = (await session.execute(wanted.where(is_next))).all()
            yield [KeptImage(*row) for row in rows]
            if len(rows) < _ROWS:
                break
            is_next = table.id > rows[-1].id


async def still_kept(sessions: SessionMaker, names: Collection[str], *, retention_days: int | None = None) -> set[str]:
    """Those of the names of images that are kept now, and not due to be deleted for their age."""
    generated: list[ColumnElement[bool]] = [*SHOWN, *OWNED]
    if retention_days is not None:
        generated.append(Generation.created_at > func.now() - func.make_interval(0, 0, 0, retention_days))
    uploaded = [Upload.is_stored.is_(True), Upload.expires_at > func.now()]
    found = [*await _find(sessions, Generation, names, generated), *await _find(sessions, Upload, names, uploaded)]
    return {each.name for each in found}


async def owned_names(sessions: SessionMaker, names: Collection[str]) -> set[str]:
    """The names of the files that the generations and uploads of these names may have in the store, copies included."""
    images = await _find(sessions, Generation, names, OWNED)
    uploads = {each.name for each in await _find(sessions, Upload, names)}
    return uploads | {name for each in images for name in (each.name, *names_of_thumbnails(each.name, each.format))}


async def deleted_names(sessions: SessionMaker, names: Collection[str]) -> set[str]:
    """Those of the names of files whose image was deleted."""
    ids = {_id_of(name) for name in names}
    wanted = select(Generation.id).where(Generation.id.in_(ids), Generation.deleted_at.is_not(None))
    async with sessions.begin() as session:
        deleted = set(await session.scalars(wanted))
    return {name for name in names if _id_of(name) in deleted}


async def _find(
    sessions: SessionMaker,
    table: type[Generation | Upload],
    names: Collection[str],
    conditions: Sequence[ColumnElement[bool]] = (),
) -> Sequence[KeptImage]:
    """The rows of these names that meet the conditions."""
    wanted = _select(table).where(table.id.in_(map(_id_of, names)), *conditions)
    async with sessions.begin() as session:
        return [KeptImage(*row) for row in await session.execute(wanted)]


def _select(table: type[Generation | Upload]) -> Select[str, ImageFormat, int]:
    """The columns of KeptImage."""
    return select(table.id, table.format, Generation.attempts if table is Generation else literal(1))


def _id_of(name: str) -> str:
    return name.partition(".")[0]
