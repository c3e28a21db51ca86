"""What a repeated request is answered with: the images that were delivered for its Idempotency-Key before."""

from sqlalchemy import and_, false, func, select, text

from app.core.security import without_random
from app.generations.collaborators import Generations
from app.generations.errors import (
    AcceptedBefore,
    CallerChangedError,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    ImageDeleted,
)
from app.generations.ledger.queue import IdempotencyClaim, Recorded
from app.generations.spec import Caller, Delivered, GenerationSpec, ImageError, input_ids
from app.models import ApiKey, Claim, Generation

_IS_OVER = Claim.created_at < func.now() - text("interval '24 hours'")
_HAS_LAPSED = Generation.lease_until < func.now()
_HAS_EXPIRED = func.coalesce(ApiKey.expires_at <= func.now(), false())


async def find(
    generations: Generations, claim: IdempotencyClaim, caller: Caller, *, is_asynchronous: bool = False
) -> Recorded | None:
    """The request that has this claim, delivered, or unfinished where it or this one is asynchronous; None where there
    is none. Locks nothing, and changes nothing.

    Raises IdempotencyKeyReused where the key came with another request, IdempotencyKeyInUse where both are synchronous
    and the first is still being drawn, and CallerChangedError where the caller's API key is not what admission saw: one
    that was revoked since gets no replay.
    """
    statement = (
        select(Claim, Generation, _HAS_LAPSED, ApiKey.revision, _HAS_EXPIRED)
        .join(Generation, Generation.id == Claim.generation_id)
        .join(ApiKey, ApiKey.id == caller.key_id)
    )
    async with generations.sessions.begin() as session:
        found = (await session.execute(statement.where(Claim.scope == claim.scope, ~_IS_OVER))).one_or_none()
    if found is None:
        return None
    claimed, generation, has_lapsed, revision, has_expired = found
    if has_expired or revision != caller.revision:
        raise CallerChangedError
    if claimed.fingerprint not in claim.fingerprints:
        raise IdempotencyKeyReused
    ids = [generation.id, *(claimed.other_ids or ())]
    if generation.status in {"queued", "processing"} and (generation.expires_at is not None or not has_lapsed):
        if generation.expires_at is None and not is_asynchronous:
            raise IdempotencyKeyInUse
        return Recorded(ids, generation.created_at, is_replay=True, is_unfinished=True)
    if generation.status != "delivered":
        return None
    return Recorded(ids, generation.created_at, is_replay=True)


async def delivered(generations: Generations, spec: GenerationSpec, recorded: Recorded) -> Delivered:
    """The images of a request that is replayed, and the errors of those that were asked for together with them.

    Raises ImageDeleted where one of the images was deleted since, and AcceptedBefore where it has not ended.
    """
    if recorded.is_unfinished:
        raise AcceptedBefore(recorded.ids[0])
    # The ids of a request begin with the same time: this reads one millisecond of the primary key.
    first, *_ = ids = recorded.ids
    moment = without_random(first)
    of_request = (
        Generation.id >= moment,
        Generation.id < f"{moment}~",
        Generation.request_id == select(Generation.request_id).where(Generation.id == first).scalar_subquery(),
    )
    statement = select(Generation).where(Generation.id.in_(ids) | and_(*of_request)).order_by(Generation.id)
    async with generations.sessions.begin() as session:
        images = (await session.scalars(statement)).all()
    if any(each.deleted_at is not None and each.id in ids for each in images):
        raise ImageDeleted
    row = next(each for each in images if each.id == first)
    return Delivered(
        ids,
        [generations.url(each, row.format) for each in ids],
        row.format,
        spec.prompt,
        row.model,
        row.size,
        row.quality,
        generations.shown_price(row),
        recorded.created_at,
        is_replay=True,
        contents=(),
        errors=[ImageError(index, each.error) for index, each in enumerate(images) if each.error is not None],
        inputs=input_ids(row.inputs),
    )
