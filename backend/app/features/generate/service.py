"""What happens when a picture is asked for, and when it is looked at."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.core.db import SessionMaker
from app.core.errors import Invalid, NotFound
from app.core.security import KeyEnvironment, is_id, new_timed_id
from app.core.web.pages import Cursor
from app.features.keys.service import Caller
from app.features.usage.ledger import Ledger
from app.features.usage.ledger.entries import Entry
from app.models import ApiKey, Generation
from app.providers import Order, Picture, Provider, Size


class GenerationNotFound(NotFound):
    code, detail = "generation_not_found", "There is no such generation"


class ImageNotFound(NotFound):
    code, detail = "image_not_found", "There is no such image"


@dataclass(frozen=True)
class Studio:
    """The collaborators of every generation: who draws for which keys, where it is recorded, what URLs begin with."""

    sessions: SessionMaker
    ledger: Ledger
    providers: Mapping[KeyEnvironment, Provider]
    public_url: str
    clock: Callable[[], float]


@dataclass(frozen=True)
class Delivered:
    """A picture that its caller was given."""

    id: str
    url: str
    prompt: str
    created_at: datetime
    replayed: bool


async def generate(
    studio: Studio, *, caller: Caller, prompt: str, size: Size, idempotency_key: str | None = None
) -> Delivered:
    """A delivered picture, recorded and counted, both on disk before this returns. Nothing is drawn yet: the picture is
    a function of what is recorded, and is drawn for whoever looks at it.

    With an idempotency key that the account used within a day for the same request in the same environment: the picture
    that was delivered then, and nothing is counted. Raises Invalid for a size that the provider cannot draw, and what
    `Ledger.record` raises.
    """
    provider = studio.providers[caller.environment]
    refusal = provider.refusal(size)
    if refusal is not None:
        raise Invalid([{"pointer": "#/size", "detail": refusal}])
    entry = Entry(new_timed_id("gen", now=studio.clock()), caller.key_id, prompt, str(size), provider.name)
    if idempotency_key is not None:
        entry.scope = _digest(caller.user_id, caller.environment, _ROUTE, idempotency_key)
        entry.fingerprint = _digest(prompt, entry.size)
    recorded = await studio.ledger.record(entry)
    return Delivered(recorded.id, _url(studio, recorded.id), prompt, recorded.created_at, recorded.replayed)


@dataclass(frozen=True)
class Listed:
    """A delivered picture, as its account sees it later."""

    id: str
    url: str
    prompt: str
    size: str
    environment: KeyEnvironment
    key_id: str
    created_at: datetime


async def find_all(
    studio: Studio, session: AsyncSession, *, caller: Caller, after: Cursor | None, limit: int
) -> Sequence[Listed]:
    """What the caller's account generated in the caller's environment, newest first: at most `limit`, behind `after`.

    Each of the account's keys gives its newest rows from the index, so the work does not grow with the ledger.
    """
    newest = select(Generation).where(Generation.key_id == ApiKey.id, Generation.status == "delivered")
    if after is not None:
        newest = newest.where(Generation.id < after.id)
    newest_of_key = aliased(Generation, newest.order_by(Generation.id.desc()).limit(limit).lateral())
    mine = ApiKey.user_id == caller.user_id, ApiKey.environment == caller.environment
    statement = select(newest_of_key).join_from(ApiKey, newest_of_key, true()).where(*mine)
    found = await session.scalars(statement.order_by(newest_of_key.id.desc()).limit(limit))
    return [_listed(studio, generation, caller) for generation in found]


async def find_one(studio: Studio, session: AsyncSession, *, caller: Caller, generation_id: str) -> Listed:
    """One of them. Raises GenerationNotFound for what is another account's, of the other environment, or never was."""
    if not is_id("gen", generation_id):
        raise GenerationNotFound
    mine = ApiKey.user_id == caller.user_id, ApiKey.environment == caller.environment
    statement = select(Generation).join(ApiKey, ApiKey.id == Generation.key_id).where(*mine)
    delivered = Generation.id == generation_id, Generation.status == "delivered"
    generation = await session.scalar(statement.where(*delivered))
    if generation is None:
        raise GenerationNotFound
    return _listed(studio, generation, caller)


def _listed(studio: Studio, generation: Generation, caller: Caller) -> Listed:
    return Listed(
        id=generation.id,
        url=_url(studio, generation.id),
        prompt=generation.prompt,
        size=generation.size,
        environment=caller.environment,
        key_id=generation.key_id,
        created_at=generation.created_at,
    )


def _url(studio: Studio, generation_id: str) -> str:
    return f"{studio.public_url}/v1/images/{generation_id}.png"


async def find_delivered(studio: Studio, *, generation_id: str) -> Generation:
    """The generation whose picture may be looked at. Raises ImageNotFound for any other id."""
    if not is_id("gen", generation_id):
        raise ImageNotFound
    delivered = Generation.id == generation_id, Generation.status == "delivered"
    async with studio.sessions.begin() as session:
        generation = await session.scalar(select(Generation).where(*delivered))
    if generation is None:
        raise ImageNotFound
    return generation


async def draw(studio: Studio, generation: Generation) -> Picture:
    """The picture of a delivered generation, the same bytes every time. Raises Unavailable when too much waits."""
    provider = next(each for each in studio.providers.values() if each.name == generation.provider)
    width, _, height = generation.size.partition("x")
    return await provider.draw(Order(generation.prompt, Size(int(width), int(height))))


_ROUTE = "/v1/generate"


def _digest(*parts: str) -> bytes:
    # As JSON, so that no two lists of parts are written alike.
    return sha256(json.dumps(parts).encode()).digest()
