"""Generations as their account sees them, whatever their status."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from app.core.errors import ApiError
from app.core.security import KeyEnvironment, is_id
from app.generations.collaborators import Generations
from app.generations.errors import GenerationNotFound
from app.generations.spec import input_ids
from app.models import ApiKey, Generation
from app.models.generations import GenerationStatus

UNFINISHED: Collection[GenerationStatus] = ("queued", "processing")


@dataclass(frozen=True)
class ImageState:
    id: str
    url: str | None
    error: ApiError | None


@dataclass(frozen=True)
class GenerationState:
    id: str
    request_id: str
    status: GenerationStatus
    position: int | None
    started_at: datetime | None
    expires_at: datetime | None
    error: ApiError | None
    prompt: str
    model: str
    size: str
    quality: str
    key_id: str
    key_name: str
    environment: KeyEnvironment
    created_at: datetime
    outputs: Sequence[ImageState]
    inputs: Sequence[str | None]

    @property
    def has_ended(self) -> bool:
        return self.status not in UNFINISHED


async def find(generations: Generations, *, account_id: str, generation_id: str) -> GenerationState:
    if not is_id("gen", generation_id):
        raise GenerationNotFound
    own = Generation.account_id == account_id, Generation.id == generation_id, Generation.deleted_at.is_(None)
    statement = select(Generation, ApiKey).join(ApiKey, ApiKey.id == Generation.key_id).where(*own)
    async with generations.sessions.begin() as session:
        found = (await session.execute(statement)).one_or_none()
        if found is None:
            raise GenerationNotFound
        row = found[0]
        before = Generation.key_id == row.key_id, Generation.status == "queued", Generation.id < row.id
        count = await session.scalar(select(func.count()).where(*before)) or 0
    return _state(generations, *found, count + 1 if row.status == "queued" else None)


async def find_unfinished(generations: Generations, *, account_id: str, limit: int) -> Sequence[GenerationState]:
    own = Generation.account_id == account_id, Generation.lease_until.is_not(None), Generation.status.in_(UNFINISHED)
    statement = select(Generation, ApiKey).join(ApiKey, ApiKey.id == Generation.key_id).where(*own)
    async with generations.sessions.begin() as session:
        rows = await session.execute(statement.order_by(Generation.id.desc()).limit(limit))
        return [_state(generations, *row, None) for row in rows]


def _state(generations: Generations, row: Generation, key: ApiKey, position: int | None) -> GenerationState:
    error = ApiError(f"It was {row.status}") if row.status in {"failed", "lost", "cancelled"} else None
    url = generations.url(row.id, row.format) if row.status == "delivered" else None
    return GenerationState(
        id=row.id,
        request_id=row.request_id,
        status=row.status,
        position=position,
        started_at=row.sent_at,
        expires_at=row.expires_at,
        error=error,
        prompt=row.prompt,
        model=row.model,
        size=row.size,
        quality=row.quality,
        key_id=key.id,
        key_name=key.name,
        environment=row.environment,
        created_at=row.created_at,
        outputs=[ImageState(row.id, url, error)],
        inputs=input_ids(row.inputs),
    )
