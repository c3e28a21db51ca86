"""The call that makes images, from acceptance to delivery."""

from collections.abc import Sequence

from sqlalchemy import select

from app.core.errors import Invalid
from app.generations import accept, run
from app.generations.collaborators import Generations
from app.generations.errors import ImageDeleted
from app.generations.spec import Caller, Delivered, GenerationSpec
from app.models import Generation
from app.providers import Size


async def generate(
    generations: Generations,
    *,
    caller: Caller,
    spec: GenerationSpec,
    route: str,
    idempotency_key: str | None = None,
) -> Delivered:
    """Delivered images, recorded and counted, both on disk before this returns; all of them or none.

    What a deterministic provider draws is a function of what is recorded, and is drawn for each client that looks at
    it. Any other provider draws now: the key is checked in the database before, the images are kept before they are
    delivered, and no connection is held meanwhile.

    With an idempotency key that the account used within a day for the same request on the same route in the same
    environment: the images that were delivered then, and nothing is counted. Raises Invalid for a size that cannot be
    drawn, ImageDeleted for a replay whose image was deleted, and what `Ledger.record` and `Provider.draw` raise.
    """
    size = supported_size(generations, spec.size)
    provider = generations.providers[caller.environment]
    record = accept.new_record(
        caller, spec, provider=provider.name, route=route, idempotency_key=idempotency_key, now=generations.clock()
    )
    make = run.draw_and_record if provider.is_deterministic else run.record_and_draw
    recorded, contents = await make(generations, provider, record, spec, size)
    if recorded.is_replay:
        await _refuse_deleted(generations, recorded.ids)
    urls = [generations.url(each, spec.format) for each in recorded.ids]
    return Delivered(recorded.ids, urls, spec.format, spec.prompt, recorded.created_at, recorded.is_replay, contents)


def supported_size(generations: Generations, text: str) -> Size:
    """The size that is written as `1024x1024`. Raises Invalid, with the sizes that can be drawn, for any other text."""
    size = Size.parse(text)
    refusal = generations.providers["live"].refusal(size)
    if size is None or refusal is not None:
        raise Invalid([{"pointer": "#/size", "detail": refusal or "Must be written as 1024x1024"}])
    return size


async def _refuse_deleted(generations: Generations, ids: Sequence[str]) -> None:
    async with generations.sessions.begin() as session:
        deleted = select(Generation.id).where(Generation.id.in_(ids), Generation.deleted_at.is_not(None)).limit(1)
        if await session.scalar(deleted) is not None:
            raise ImageDeleted
