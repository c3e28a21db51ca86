"""Cancelling jobs: by their caller, and with the key or account that they were accepted for."""

from collections.abc import Collection, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from app.generations.collaborators import Generations
from app.generations.errors import NotCancellable
from app.generations.jobs.state import GenerationState
from app.generations.ledger.in_session import execute
from app.generations.ledger.statements import CANCEL_QUEUED


async def cancel(generations: Generations, *, request_id: str, error: str = "cancelled") -> Sequence[str]:
    """Cancels a job that was not sent to a provider: the ids of its images; none where it was, has ended, or is none.

    Once this returns nothing is drawn for it. Raises Unavailable and OutcomeUnknown.
    """
    rows = await generations.ledger.query("cancel_job", request_id=request_id, error=error)
    ids = [each["id"] for each in rows]
    note_cancelled(generations, ids, error=error)
    return ids


async def ensure_cancelled(generations: Generations, found: GenerationState) -> None:
    """Cancels the request of this generation, unless it is cancelled already. Raises NotCancellable where a provider
    was asked for it, or it has ended otherwise, and what `cancel` raises.
    """
    if found.status != "cancelled" and not await cancel(generations, request_id=found.request_id):
        raise NotCancellable


def note_cancelled(generations: Generations, ids: Collection[str], *, error: str) -> None:
    """Wakes callers who wait for these images, whose cancellation has committed, and counts them."""
    generations.bell.ring(*ids)
    if ids:
        generations.metrics.jobs.ended.add(error, number=len(ids))


async def cancel_queued(session: AsyncSession, *, key_ids: Sequence[str], error: str) -> Sequence[str]:
    """Cancels all that waits under these keys, in the transaction at hand, which has locked the keys' rows before. The
    ids of what it has cancelled, for `note_cancelled` after the commit.
    """
    if not key_ids:
        return []
    return [row.id for row in await execute(session, CANCEL_QUEUED, key_id=list(key_ids), error=error)]
