"""What is recorded of a generation."""

from sqlalchemy import Date, Update, cast, func, select, update
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.keys.service import ACTIVE, InvalidApiKey
from app.models import ApiKey, Generation, Usage


async def record_delivered(session: AsyncSession, generation: Generation) -> None:
    """Writes a delivered generation, counts it on its UTC day, and moves the key's `last_used_at`: all in this
    transaction or nothing. `created_at` and `delivered_at` are the transaction's time, on the database's clock.

    The key's row is locked first and decides: a key that was revoked before gets nothing recorded and raises
    InvalidApiKey; a revocation that comes now waits, and is younger than this generation.
    """
    key = select(ApiKey.id).where(ApiKey.id == generation.key_id, *ACTIVE).with_for_update(key_share=True)
    if await session.scalar(key) is None:
        raise InvalidApiKey
    generation.status = "delivered"
    generation.delivered_at = func.now()
    session.add(generation)
    await session.flush()
    await session.execute(_count_one(generation.key_id))
    await session.execute(_mark_used(generation.key_id))


def _count_one(key_id: str) -> Insert:
    # now() is the transaction's time, the very value that delivered_at has just been given.
    today = cast(func.timezone("UTC", func.now()), Date)
    one = insert(Usage).values(key_id=key_id, day=today, pictures=1)
    return one.on_conflict_do_update(
        index_elements=[Usage.key_id, Usage.day], set_={"pictures": Usage.pictures + one.excluded.pictures}
    )


def _mark_used(key_id: str) -> Update:
    return update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=func.greatest(ApiKey.last_used_at, func.now()))
