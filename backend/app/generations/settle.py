"""The end of a request that was recorded with a lease: delivered, all of it or a part, or given up."""

from collections.abc import Mapping

from app.core.errors import Unavailable
from app.core.logs import logger
from app.generations.collaborators import Generations
from app.generations.errors import IdempotencyKeyInUse, LeaseLostError
from app.generations.ledger.queue import ImageEnd, PendingRecord, PendingSettlement
from app.generations.thumbnails import delete_with_thumbnails


async def deliver(generations: Generations, record: PendingRecord, ends: Mapping[str, ImageEnd]) -> None:
    """Settles the request: once this returns its images count, on disk, but for those whose end is an error.

    Raises IdempotencyKeyInUse, or Unavailable where it has no idempotency key, if its lease was over; then its images
    are forgotten. Raises what `Ledger.settle` raises.
    """
    try:
        await _settle(generations, record, ends)
    except LeaseLostError as error:
        if not error.is_anothers:
            await _forget_images(generations, record)
        # With an idempotency key, a later call gets what the request that took over delivers; without, nothing did.
        raise (Unavailable() if record.scope is None else IdempotencyKeyInUse()) from None


async def give_up(generations: Generations, record: PendingRecord, ends: Mapping[str, ImageEnd]) -> None:
    """Settles the request as failed, and deletes what was kept of it, unless it is or may be another worker's."""
    if await fail(generations, record, ends):
        await _forget_images(generations, record)


async def fail(generations: Generations, record: PendingRecord, ends: Mapping[str, ImageEnd]) -> bool:
    """Settles the request as failed, each image with its code, so that its idempotency key is free; where that cannot
    be done, it is swept when its lease is over. Whether its images are certainly no other worker's.
    """
    try:
        await _settle(generations, record, ends)
    except LeaseLostError as error:
        logger.warning("generation_not_given_up", exc_info=True)
        return not error.is_anothers
    except Unavailable:
        logger.warning("generation_not_given_up", exc_info=True)
        return record.queueing is None  # only a job is drawn by a second worker
    return True


async def _settle(generations: Generations, record: PendingRecord, ends: Mapping[str, ImageEnd]) -> None:
    await generations.ledger.settle(PendingSettlement(record, ends))
    for end in ends.values():
        generations.metrics.images.ended.add(record.model, end.route or "", end.error or "delivered")


async def _forget_images(generations: Generations, record: PendingRecord) -> None:
    for generation_id in record.ids:
        try:
            await delete_with_thumbnails(generations, generation_id, record.format)
        except Unavailable:
            logger.warning("image_not_deleted", exc_info=True)  # the sweeper deletes it
