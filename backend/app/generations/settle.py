"""The end of a request that was recorded with a lease: delivered, all of it or a part, or given up."""

import asyncio
import math
from collections.abc import Mapping, Sequence

from app.core.errors import Unavailable
from app.core.logs import logger
from app.generations.collaborators import Generations
from app.generations.errors import IdempotencyKeyInUse, LeaseLostError
from app.generations.ledger.queue import ImageEnd, PendingRecord, PendingSettlement
from app.generations.spec import names_of_attempts

_PAUSE_SECONDS = 0.5


async def deliver(
    generations: Generations, record: PendingRecord, ends: Mapping[str, ImageEnd], *, until: float | None = None
) -> None:
    """Settles the request: once this returns its images count, on disk, but for those whose end is an error. While the
    ledger is away that is tried until then (of the event loop's clock), by default once.

    Raises IdempotencyKeyInUse, or Unavailable where it has no idempotency key, if its lease was over; then its images
    are forgotten. Raises what `Ledger.settle` raises.
    """
    try:
        await _settle(generations, record, ends, until=-math.inf if until is None else until)
    except LeaseLostError:
        await forget_images(generations, record)
        # With an idempotency key, a later call gets what the request that took over delivers; without, nothing did.
        raise (Unavailable() if record.scope is None else IdempotencyKeyInUse()) from None


async def give_up(generations: Generations, record: PendingRecord, ends: Mapping[str, ImageEnd]) -> None:
    """Settles the request as failed, and deletes what was kept of it."""
    await fail(generations, record, ends)
    await forget_images(generations, record)


async def fail(generations: Generations, record: PendingRecord, ends: Mapping[str, ImageEnd]) -> None:
    """Settles the request as failed, each image with its code, so that its idempotency key is free; where that cannot
    be done, it is swept when its lease is over.
    """
    try:
        await _settle(generations, record, ends)
    except (Unavailable, LeaseLostError):
        logger.warning("generation_not_given_up", exc_info=True)


async def _settle(
    generations: Generations, record: PendingRecord, ends: Mapping[str, ImageEnd], *, until: float = -math.inf
) -> None:
    while True:
        try:
            await generations.ledger.settle(PendingSettlement(record, ends))
            break
        except Unavailable:
            if asyncio.get_running_loop().time() > until:
                raise
            logger.warning("settlement_delayed", exc_info=True)  # what was settled meanwhile, is settled only once
        await asyncio.sleep(_PAUSE_SECONDS)
    for end in ends.values():
        generations.metrics.images.ended.add(record.model, end.route or "", end.error or "delivered")
        charged = 0 if end.error else record.price
        generations.metrics.billing.count_image(record.model, charged=charged, cost=end.cost or 0)


async def forget_images(generations: Generations, record: PendingRecord) -> None:
    """Deletes what this attempt has kept of the request, which nobody has looked at."""
    await _forget(generations, [_names(record, each)[-1] for each in record.ids])


async def delete_earlier(generations: Generations, record: PendingRecord) -> None:
    """Deletes what earlier attempts have kept of the request. Raises StoreUnavailable."""
    for each in record.ids:
        for name in _names(record, each)[:-1]:
            await generations.store.delete(name)


async def _forget(generations: Generations, names: Sequence[str]) -> None:
    for name in names:
        try:
            await generations.store.delete(name)
        except Unavailable:
            logger.warning("image_not_deleted", exc_info=True)  # the sweeper deletes that of a failed one


def _names(record: PendingRecord, generation_id: str) -> Sequence[str]:
    """Of the image, at each attempt, this one last."""
    return names_of_attempts(generation_id, record.format, record.attempt)
