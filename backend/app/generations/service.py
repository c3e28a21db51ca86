"""The call that makes images, from acceptance to delivery."""

from collections.abc import Sequence

from sqlalchemy import and_, select

from app.core.errors import Invalid
from app.core.security import without_random
from app.generations import accept, run
from app.generations.collaborators import Generations
from app.generations.errors import ImageDeleted
from app.generations.spec import Caller, Delivered, GenerationSpec, ImageError
from app.models import Generation
from app.providers import CallBudget, DrawRequest, Size


async def generate(
    generations: Generations,
    *,
    caller: Caller,
    spec: GenerationSpec,
    route: str,
    idempotency_key: str | None = None,
) -> Delivered:
    """Delivered images, recorded and counted, both on disk before this returns. Where some of several images fail, the
    others are delivered, and `errors` has the codes; where all fail, the first error is raised.

    What a deterministic provider draws is a function of what is recorded, and is drawn for each client that looks at
    it. Any other provider draws now: the key is checked in the database before, the images are kept before they are
    delivered, and no connection is held meanwhile.

    With an idempotency key that the account used within a day for the same request on the same route in the same
    environment: the images that were delivered then, the errors of the others, and nothing is counted. Raises Invalid
    for a size that cannot be drawn, ImageDeleted for a replay whose image was deleted, and what `Ledger.record` and
    `Provider.draw` raise.
    """
    size = supported_size(generations, spec.size)
    provider = generations.providers[caller.environment]
    record = accept.new_record(
        caller, spec, provider=provider.name, route=route, idempotency_key=idempotency_key, now=generations.clock()
    )
    if provider.is_deterministic:
        made = await run.draw_and_record(generations, provider, record, spec, size)
    else:
        request = DrawRequest(spec.prompt, size, budget=CallBudget(caller.account_id))
        made = await run.record_and_draw(generations, provider, record, spec, request)
    recorded, contents, errors = made
    if recorded.is_replay:
        errors = await _errors_of_replay(generations, recorded.ids)
    urls = [generations.url(each, spec.format) for each in recorded.ids]
    return Delivered(
        recorded.ids, urls, spec.format, spec.prompt, recorded.created_at, recorded.is_replay, contents, errors
    )


def supported_size(generations: Generations, text: str) -> Size:
    """The size that is written as `1024x1024`. Raises Invalid, with the sizes that can be drawn, for any other text."""
    size = Size.parse(text)
    refusal = generations.providers["live"].refusal(size)
    if size is None or refusal is not None:
        raise Invalid([{"pointer": "#/size", "detail": refusal or "Must be written as 1024x1024"}])
    return size


async def _errors_of_replay(generations: Generations, ids: Sequence[str]) -> Sequence[ImageError]:
    """The errors of the images that were asked for together with these, which were delivered. Raises ImageDeleted where
    one of these was deleted since.
    """
    # The ids of a request begin with the same time: this reads one millisecond of the primary key.
    moment = without_random(ids[0])
    of_request = (
        Generation.id >= moment,
        Generation.id < f"{moment}~",
        Generation.request_id == select(Generation.request_id).where(Generation.id == ids[0]).scalar_subquery(),
    )
    statement = select(Generation.id, Generation.error, Generation.deleted_at).order_by(Generation.id)
    async with generations.sessions.begin() as session:
        images = (await session.execute(statement.where(Generation.id.in_(ids) | and_(*of_request)))).all()
    if any(each.deleted_at is not None and each.id in ids for each in images):
        raise ImageDeleted
    return [ImageError(index, each.error) for index, each in enumerate(images) if each.error is not None]
