"""What a repeated request is answered with: the images that were delivered for its Idempotency-Key before."""

from sqlalchemy import and_, func, select, text

from app.core.security import without_random
from app.generations.collaborators import Generations
from app.generations.errors import IdempotencyKeyInUse, IdempotencyKeyReused, ImageDeleted
from app.generations.ledger.queue import IdempotencyClaim, Recorded
from app.generations.spec import Delivered, GenerationSpec, ImageError
from app.models import Claim, Generation

_IS_OVER = Claim.created_at < func.now() - text("interval '24 hours'")


async def find(generations: Generations, claim: IdempotencyClaim) -> Recorded | None:
    """The delivered request that has this claim; None where there is none. Locks nothing, and changes nothing.

    Raises IdempotencyKeyReused where the key came with another request, and IdempotencyKeyInUse where the first request
    with it is still being drawn.
    """
    statement = select(Claim, Generation).join(Generation, Generation.id == Claim.generation_id)
    async with generations.sessions.begin() as session:
        found = (await session.execute(statement.where(Claim.scope == claim.scope, ~_IS_OVER))).one_or_none()
    if found is None:
        return None
    claimed, generation = found
    if claimed.fingerprint not in claim.fingerprints:
        raise IdempotencyKeyReused
    if generation.status in {"queued", "processing"}:
        raise IdempotencyKeyInUse
    if generation.status != "delivered":
        return None
    return Recorded([generation.id, *(claimed.other_ids or ())], generation.created_at, is_replay=True)


async def delivered(generations: Generations, spec: GenerationSpec, recorded: Recorded) -> Delivered:
    """The images of a request that is replayed, and the errors of those that were asked for together with them. Raises
    ImageDeleted where one of the images was deleted since.
    """
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
        row.list_price,
        recorded.created_at,
        is_replay=True,
        contents=(),
        errors=[ImageError(index, each.error) for index, each in enumerate(images) if each.error is not None],
    )
