"""Pictures of providers that cost: admitted, drawn, kept, delivered, in that order; or given up."""

import asyncio
from collections.abc import Sequence

from app.core.errors import Unavailable
from app.core.logs import logger
from app.features.generate.studio import Studio, Wish, name_of
from app.features.usage.ledger.entries import Entry, IdempotencyKeyInUse, LeaseLostError, Recorded, Settlement
from app.providers import Order, Provider, ProviderTimeout

LEASE_MARGIN_SECONDS = 5
"""How much longer than its generation a lease lasts, so that it can still be settled."""


async def record_and_draw(studio: Studio, provider: Provider, entry: Entry, wish: Wish) -> Recorded:
    """The request, delivered: its key was active when it was admitted, its pictures are kept, and it counts.

    Where anything fails before that, nothing is kept, nothing counts, and the idempotency key is free again. What a
    crash leaves behind is given up when its lease is over. The time runs from here: a picture that comes too late
    is thrown away, so that no two requests with one idempotency key deliver.
    """
    deadline = asyncio.get_running_loop().time() + studio.deadline_seconds
    entry.lease_seconds = studio.deadline_seconds + LEASE_MARGIN_SECONDS
    recorded = await studio.ledger.record(entry)
    if recorded.replayed:
        return recorded
    try:
        await _draw_and_keep(studio, provider, entry, wish, deadline)
    except BaseException:
        await asyncio.shield(_give_up(studio, entry))
        raise
    try:
        await studio.ledger.settle(Settlement(entry, is_delivered=True))
    except LeaseLostError:
        await _forget(studio, entry)
        raise IdempotencyKeyInUse from None  # the winner answers whoever asks again
    return recorded


async def _draw_and_keep(studio: Studio, provider: Provider, entry: Entry, wish: Wish, deadline: float) -> None:
    try:
        async with asyncio.timeout_at(deadline):
            async with asyncio.TaskGroup() as pictures:
                for each in (entry.id, *entry.other_ids):
                    pictures.create_task(_draw_one(studio, provider, wish, name_of(each, wish.format), deadline))
    except TimeoutError:
        raise ProviderTimeout from None
    except BaseExceptionGroup as failed:
        raise _first_of(failed) from None


async def _draw_one(studio: Studio, provider: Provider, wish: Wish, name: str, deadline: float) -> None:
    picture = await provider.draw(Order(wish.prompt, wish.size), deadline=deadline)
    await studio.store.put(name, (await studio.convert(picture, wish.format)).content)


def _first_of(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = failed
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


async def _give_up(studio: Studio, entry: Entry) -> None:
    """Settled as failed, so that its key is free; and if that cannot be, when its lease is over."""
    try:
        await studio.ledger.settle(Settlement(entry, is_delivered=False))
    except (Unavailable, LeaseLostError):
        logger.warning("generation_not_given_up", exc_info=True)
    await _forget(studio, entry)


async def _forget(studio: Studio, entry: Entry) -> None:
    names: Sequence[str] = [name_of(each, entry.format) for each in (entry.id, *entry.other_ids)]
    for name in names:
        try:
            await studio.store.delete(name)
        except Unavailable:
            logger.warning("picture_not_deleted", exc_info=True)  # whoever sweeps deletes it
