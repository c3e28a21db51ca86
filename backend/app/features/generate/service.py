"""What happens when a picture is asked for, and when it is looked at."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import func, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.errors import ApiError, Invalid, NotFound
from app.core.images import ImageFormat
from app.core.security import KeyEnvironment, is_id, new_timed_id
from app.core.web.pages import Cursor
from app.features.generate import drawing
from app.features.generate.studio import Studio, Wish, name_of
from app.features.keys.service import Caller
from app.features.usage.ledger.entries import Entry, Recorded
from app.models import ApiKey, Generation
from app.providers import Provider


class GenerationNotFound(NotFound):
    code, detail = "generation_not_found", "There is no such generation"


class ImageDeleted(ApiError):
    status, title, code = 410, "Gone", "image_deleted"
    detail = "The picture of this Idempotency-Key was deleted"


SHOWN = Generation.status == "delivered", Generation.deleted_at.is_(None)
"""What a generation must be for anybody to see it."""


class Delivered(NamedTuple):
    """Pictures that their caller was given. `id` and `url` are those of the first, which names the request.

    `drawn` holds their bytes, where they were asked for and are not to be read from where they are kept.
    """

    ids: Sequence[str]
    urls: Sequence[str]
    format: ImageFormat
    prompt: str
    created_at: datetime
    replayed: bool
    drawn: drawing.Bytes

    @property
    def id(self) -> str:
        return self.ids[0]

    @property
    def url(self) -> str:
        return self.urls[0]


async def generate(
    studio: Studio, *, caller: Caller, wish: Wish, route: str, idempotency_key: str | None = None
) -> Delivered:
    """Delivered pictures, recorded and counted, both on disk before this returns; all of them or none.

    What a deterministic provider draws is a function of what is recorded, and is drawn for whoever looks at it. Any
    other draws now: the key is checked in the database before, the pictures are kept before they are delivered, and no
    connection is held meanwhile.

    With an idempotency key that the account used within a day for the same request on the same route in the same
    environment: the pictures that were delivered then, and nothing is counted. Raises Invalid for a size that cannot be
    drawn, ImageDeleted for a replay whose picture was deleted, and what `Ledger.record` and `Provider.draw` raise.
    """
    refusal = studio.providers["live"].refusal(wish.size)
    if refusal is not None:
        raise Invalid([{"pointer": "#/size", "detail": refusal}])
    provider = studio.providers[caller.environment]
    entry = _entry(studio, provider, caller, wish)
    if idempotency_key is not None:
        entry.scope = _digest(caller.user_id, caller.environment, route, idempotency_key)
        entry.fingerprint = _digest(wish.prompt, entry.size, wish.format, str(wish.count), str(wish.as_bytes))
    deliver = drawing.draw_and_record if provider.is_deterministic else drawing.record_and_draw
    recorded, drawn = await deliver(studio, provider, entry, wish)
    if recorded.replayed:
        await _refuse_deleted(studio, recorded)
    ids = [recorded.id, *recorded.other_ids]
    urls = [_url(studio, each, wish.format) for each in ids]
    return Delivered(ids, urls, wish.format, wish.prompt, recorded.created_at, recorded.replayed, drawn)


def _entry(studio: Studio, provider: Provider, caller: Caller, wish: Wish) -> Entry:
    now = studio.clock()
    first, *others = [new_timed_id("gen", now=now) for _ in range(wish.count)]
    size = str(wish.size)
    return Entry(first, caller.key_id, wish.prompt, size, provider.name, other_ids=others, format=wish.format)


async def _refuse_deleted(studio: Studio, recorded: Recorded) -> None:
    ids = [recorded.id, *recorded.other_ids]
    async with studio.sessions.begin() as session:
        deleted = select(Generation.id).where(Generation.id.in_(ids), Generation.deleted_at.is_not(None)).limit(1)
        if await session.scalar(deleted) is not None:
            raise ImageDeleted


@dataclass(frozen=True)
class Listed:
    """A delivered picture, as its account sees it later."""

    id: str
    url: str
    prompt: str
    size: str
    format: ImageFormat
    environment: KeyEnvironment
    key_id: str
    key_name: str
    created_at: datetime


async def find_all(
    studio: Studio,
    session: AsyncSession,
    *,
    user_id: str,
    environment: KeyEnvironment | None,
    after: Cursor | None,
    limit: int,
) -> Sequence[Listed]:
    """What the account generated in the environment, or in both, newest first: at most `limit`, behind `after`.

    Each of the account's keys gives its newest rows from the index, so the work does not grow with the ledger.
    """
    newest = select(Generation).where(Generation.key_id == ApiKey.id, *SHOWN)
    if after is not None:
        newest = newest.where(Generation.id < after.id)
    newest_of_key = aliased(Generation, newest.order_by(Generation.id.desc()).limit(limit).lateral())
    statement = select(newest_of_key, ApiKey).join_from(ApiKey, newest_of_key, true()).where(ApiKey.user_id == user_id)
    if environment is not None:
        statement = statement.where(ApiKey.environment == environment)
    found = await session.execute(statement.order_by(newest_of_key.id.desc()).limit(limit))
    return [_listed(studio, *row) for row in found]


async def find_one(studio: Studio, session: AsyncSession, *, caller: Caller, generation_id: str) -> Listed:
    """One of them. Raises GenerationNotFound for what is another account's, of the other environment, or never was."""
    if not is_id("gen", generation_id):
        raise GenerationNotFound
    mine = ApiKey.user_id == caller.user_id, ApiKey.environment == caller.environment
    statement = select(Generation, ApiKey).join(ApiKey, ApiKey.id == Generation.key_id).where(*mine)
    found = (await session.execute(statement.where(Generation.id == generation_id, *SHOWN))).one_or_none()
    if found is None:
        raise GenerationNotFound
    return _listed(studio, *found)


def _listed(studio: Studio, generation: Generation, key: ApiKey) -> Listed:
    return Listed(
        id=generation.id,
        url=_url(studio, generation.id, generation.format),
        prompt=generation.prompt,
        size=generation.size,
        format=generation.format,
        environment=key.environment,
        key_id=key.id,
        key_name=key.name,
        created_at=generation.created_at,
    )


def _url(studio: Studio, generation_id: str, picture_format: str) -> str:
    return f"{studio.public_url}/v1/images/{generation_id}.{picture_format}"


async def delete_picture(studio: Studio, *, caller: Caller, generation_id: str) -> None:
    """Forgets the picture for good. The generation stays recorded, and counts.

    Raises GenerationNotFound for what is another account's, of the other environment, deleted already, or never was.
    """
    async with studio.sessions.begin() as session:
        found = await find_one(studio, session, caller=caller, generation_id=generation_id)
    # First the bytes: whatever happens between the two, what is told to be deleted is, and asking again helps.
    await studio.store.delete(name_of(found.id, found.format))
    mine = Generation.id == generation_id, Generation.deleted_at.is_(None)
    async with studio.sessions.begin() as session:
        statement = update(Generation).where(*mine).values(deleted_at=func.now()).returning(Generation.id)
        if await session.scalar(statement) is None:
            raise GenerationNotFound


def _digest(*parts: str) -> bytes:
    # As JSON, so that no two lists of parts are written alike.
    return sha256(json.dumps(parts).encode()).digest()
