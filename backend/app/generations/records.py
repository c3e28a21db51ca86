"""The records of generations, as their account sees them: listed, shown, deleted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import (
    ColumnExpressionArgument,
    Integer,
    Select,
    Text,
    bindparam,
    column,
    func,
    select,
    true,
    union_all,
    update,
    values,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.catalogue.prices import format_amount
from app.core.errors import ApiError
from app.core.images import ImageFormat
from app.core.security import KeyEnvironment, is_id
from app.generations.collaborators import Generations
from app.generations.errors import GenerationNotEnded, GenerationNotFound
from app.generations.failures import failure_of
from app.generations.spec import input_ids
from app.generations.thumbnails import delete_with_thumbnails
from app.models import ENDED_UNDELIVERED, ApiKey, Generation, GenerationStatus

SHOWN = Generation.status == "delivered", Generation.deleted_at.is_(None)
"""What a generation must be for anybody to see its image."""

DELIVERED: tuple[GenerationStatus, ...] = ("delivered",)
UNFINISHED: tuple[GenerationStatus, ...] = ("queued", "processing")
"""The statuses of what has not ended."""
UNDELIVERED: tuple[GenerationStatus, ...] = ("failed", "lost", "cancelled")
"""The statuses of what has ended without an image."""

_OF_INDEXES: Mapping[tuple[GenerationStatus, ...], ColumnExpressionArgument[bool]] = {
    DELIVERED: Generation.deleted_at.is_(None),
    UNFINISHED: Generation.lease_until.is_not(None),
    UNDELIVERED: ENDED_UNDELIVERED,
}
"""Statuses that share an index of an account's generations, and a condition on these: the first hides deleted images,
by the others PostgreSQL knows that the index has them all. What was never delivered stays listed, without its prompt.
"""


@dataclass
class GenerationRecord:
    """A generation, as its account sees it later. Nobody changes it. It is not frozen, because a frozen dataclass sets
    each field by a call, and every asynchronous request makes one.
    """

    id: str
    url: str
    """Where its image is once it is delivered: `shown_url` is None until then."""
    prompt: str
    model: str
    size: str
    quality: str
    format: ImageFormat
    price: str
    """A decimal in `currency`, which is None where no model has a price."""
    currency: str | None
    environment: KeyEnvironment
    key_id: str
    created_at: datetime
    inputs: Sequence[str | None]
    """As in Delivered."""
    status: GenerationStatus
    error: ApiError | None
    """Why it was not delivered, if it has ended so."""
    started_at: datetime | None
    """When a provider was asked for it; None for what no worker has sent, and for what was not asynchronous."""
    delivered_at: datetime | None
    expires_at: datetime | None
    """Until when an asynchronous one may wait for a worker."""

    @property
    def shown_url(self) -> str | None:
        return self.url if self.status == "delivered" else None


@dataclass
class ListedGeneration(GenerationRecord):
    """The same, with the name of its key as it is now."""

    key_name: str


async def find_all(
    generations: Generations,
    session: AsyncSession,
    *,
    account_id: str,
    environments: Sequence[KeyEnvironment],
    before_id: str | None,
    limit: int,
    statuses: Collection[GenerationStatus] = DELIVERED,
) -> Sequence[ListedGeneration]:
    """What the account generated in these environments, newest first: at most `limit`, older than `before_id`.

    Each environment gives its newest rows from the indexes of these statuses, so the work grows with neither the ledger
    nor the keys.
    """
    statement = _newest(tuple(sorted(set(statuses))), environments=len(environments), is_after=before_id is not None)
    asked = {f"environment_{number}": each for number, each in enumerate(environments)}
    parameters = {"account_id": account_id, "before_id": before_id, "limit": limit, **asked}
    return [_listed(generations, *row) for row in await session.execute(statement, parameters)]


@cache  # parts of it hold each other: one that is made for a call would be left to the collector
def _newest(statuses: Sequence[GenerationStatus], *, environments: int, is_after: bool) -> Select[Generation, ApiKey]:
    """The statement of `find_all`, with the parameters `account_id`, `environment_0` and so on, `limit` and, where it
    lists what is older than one, `before_id`.
    """
    names = [(bindparam(f"environment_{number}", type_=Text),) for number in range(environments)]
    asked, limit = values(column("environment", Text), name="asked").data(names), bindparam("limit", type_=Integer)
    own = Generation.account_id == bindparam("account_id"), Generation.environment == asked.c.environment
    newest = select(Generation).where(*own).order_by(Generation.id.desc()).limit(limit)
    if is_after:
        newest = newest.where(Generation.id < bindparam("before_id"))
    of_indexes = [
        newest.where(Generation.status.in_(wanted), condition)
        for of_index, condition in _OF_INDEXES.items()
        if (wanted := set(statuses).intersection(of_index))
    ]
    newest_of_each = aliased(Generation, union_all(*of_indexes).lateral())
    return (
        select(newest_of_each, ApiKey)
        .select_from(asked)
        .join(newest_of_each, true())
        .join(ApiKey, ApiKey.id == newest_of_each.key_id)
        .order_by(newest_of_each.id.desc())
        .limit(limit)
    )


async def find_one(
    generations: Generations,
    session: AsyncSession,
    *,
    account_id: str,
    generation_id: str,
    environment: KeyEnvironment | None = None,
) -> ListedGeneration:
    """One of them; with an environment, of that one alone. Raises GenerationNotFound for what is another account's, was
    deleted, or never was.
    """
    found = (await find_some(generations, session, account_id=account_id, ids=[generation_id])).get(generation_id)
    if found is None or found.environment != (environment or found.environment):
        raise GenerationNotFound
    return found


async def find_some(
    generations: Generations, session: AsyncSession, *, account_id: str, ids: Collection[str]
) -> Mapping[str, ListedGeneration]:
    """Those of the account with these ids, by id. What is deleted, or no id of a generation, is left out."""
    wanted = [each for each in ids if is_id("gen", each)]
    if not wanted:
        return {}
    own = Generation.account_id == account_id, Generation.id.in_(wanted)
    statement = select(Generation, ApiKey).join(ApiKey, ApiKey.id == Generation.key_id).where(*own, *SHOWN)
    return {row.id: _listed(generations, row, key) for row, key in await session.execute(statement)}


async def delete_generation(
    generations: Generations, *, account_id: str, generation_id: str, environment: KeyEnvironment | None = None
) -> None:
    """Forgets the prompt, what went in, and the image for good. The generation stays recorded, and counts as before.

    Raises GenerationNotFound for what is another account's, of another environment than the given one, was delivered
    and deleted since, or never was, and GenerationNotEnded. What was not delivered may be without its prompt before,
    and stays so.
    """
    found = await _find_ended(generations, account_id, generation_id, environment)
    if found.deleted_at is not None:
        return
    # First the bytes: whatever happens between the two, an image that is said to be deleted is, and asking again helps.
    await delete_with_thumbnails(generations, generation_id, found.format, found.attempts)
    unchanged = Generation.id == generation_id, Generation.status == found.status, Generation.deleted_at.is_(None)
    async with generations.sessions.begin() as session:
        statement = update(Generation).where(*unchanged).values(deleted_at=func.now()).returning(Generation.id)
        if await session.scalar(statement) is None:
            raise GenerationNotFound


async def _find_ended(
    generations: Generations, account_id: str, generation_id: str, environment: KeyEnvironment | None
) -> Generation:
    own = [Generation.account_id == account_id]
    if environment is not None:
        own.append(Generation.environment == environment)
    async with generations.sessions.begin() as session:
        statement = select(Generation).where(Generation.id == generation_id, *own)
        found = await session.scalar(statement) if is_id("gen", generation_id) else None
    if found is None or (found.status == "delivered" and found.deleted_at is not None):
        raise GenerationNotFound
    if found.status in UNFINISHED:
        raise GenerationNotEnded
    return found


def record_of(generations: Generations, generation: Generation) -> GenerationRecord:
    """The row, as its account sees it."""
    return GenerationRecord(
        id=generation.id,
        url=generations.url(generation.id, generation.format),
        prompt=generation.prompt,
        model=generation.model,
        size=generation.size,
        quality=generation.quality,
        format=generation.format,
        price=format_amount(generations.shown_price(generation)),
        currency=generations.catalogue.catalogue.currency,
        environment=generation.environment,
        key_id=generation.key_id,
        created_at=generation.created_at,
        inputs=input_ids(generation.inputs),
        status=generation.status,
        error=failure_of(generation.status, generation.error),
        started_at=generation.sent_at,
        delivered_at=generation.delivered_at,
        expires_at=generation.expires_at,
    )


def _listed(generations: Generations, generation: Generation, key: ApiKey) -> ListedGeneration:
    return ListedGeneration(**vars(record_of(generations, generation)), key_name=key.name)
