"""Pictures of providers that cost: admitted, drawn, kept, delivered, in that order; or given up.

And of the one that does not: recorded, and drawn for whoever looks.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from app.core.errors import Unavailable, as_api_error
from app.core.logs import logger
from app.features.generate.studio import Studio, Wish, name_of
from app.features.usage.ledger.entries import Entry, IdempotencyKeyInUse, LeaseLostError, Recorded, Settlement
from app.providers import CallBudget, DrawRequest, Provider, ProviderTimeout

LEASE_MARGIN_SECONDS = 5
"""How much longer than its generation a lease lasts, so that it can still be settled."""


Bytes = Sequence[bytes]
"""A request's pictures in order, where the wish asks for their bytes and they were drawn now; else nothing."""


async def draw_and_record(studio: Studio, provider: Provider, entry: Entry, wish: Wish) -> tuple[Recorded, Bytes]:
    """The request, delivered, by a provider whose pictures are a function of what is recorded.

    Where their bytes are wanted they are drawn first: what cannot be drawn does not count.
    """
    drawn: Bytes = ()
    if wish.as_bytes:
        deadline = asyncio.get_running_loop().time() + studio.deadline_seconds
        drawn = [await draw(studio, provider, wish, deadline=deadline)] * wish.count
    return await studio.ledger.record(entry), drawn


async def record_and_draw(studio: Studio, provider: Provider, entry: Entry, wish: Wish) -> tuple[Recorded, Bytes]:
    """The request, delivered: its key was active when it was admitted, its pictures are kept, and it counts.

    Where anything fails before that, nothing is kept, nothing counts, and the idempotency key is free again. What a
    crash leaves behind is given up when its lease is over. The time runs from here: a picture that comes too late
    is thrown away, so that no two requests with one idempotency key deliver.
    """
    deadline = asyncio.get_running_loop().time() + studio.deadline_seconds
    entry.lease_seconds = studio.deadline_seconds + LEASE_MARGIN_SECONDS
    recorded = await studio.ledger.record(entry)
    if recorded.replayed:
        return recorded, ()
    budget = CallBudget()
    with _saying_if_paid(budget):
        drawn = await _draw_or_give_up(studio, provider, entry, wish, budget=budget, deadline=deadline)
        await _deliver(studio, entry)
    return recorded, drawn


@contextmanager
def _saying_if_paid(budget: CallBudget) -> Iterator[None]:
    """Makes every error that leaves it say whether the request may have been paid, whatever failed: the provider, the
    conversion, the store or the ledger. A client that repeats the request by itself would have it paid again.
    """
    try:
        yield
    except Exception as raised:
        if not budget.may_have_been_paid:
            raise
        error = as_api_error(raised)
        error.may_have_been_paid = True
        if error is raised:
            raise
        logger.exception("generation_failed_after_payment")  # the request's own line names the error that it becomes
        raise error from raised


async def _draw_or_give_up(
    studio: Studio, provider: Provider, entry: Entry, wish: Wish, *, budget: CallBudget, deadline: float
) -> Bytes:
    try:
        return await _draw_and_keep(studio, provider, entry, wish, budget=budget, deadline=deadline)
    except BaseException:
        await asyncio.shield(_give_up(studio, entry))
        raise


async def _deliver(studio: Studio, entry: Entry) -> None:
    try:
        await studio.ledger.settle(Settlement(entry, is_delivered=True))
    except LeaseLostError:
        await _forget(studio, entry)
        # With an idempotency key, a later call gets what the request that took over delivers; without, nothing did.
        raise (Unavailable() if entry.scope is None else IdempotencyKeyInUse()) from None


async def _draw_and_keep(
    studio: Studio, provider: Provider, entry: Entry, wish: Wish, *, budget: CallBudget, deadline: float
) -> Bytes:
    names = [name_of(each, wish.format) for each in (entry.id, *entry.other_ids)]
    keep = partial(_keep_one, studio, provider, wish, budget=budget, deadline=deadline)
    try:
        async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
            pictures = [group.create_task(keep(name)) for name in names]
    except TimeoutError:
        raise ProviderTimeout from None
    except BaseExceptionGroup as failed:
        raise _first_of(failed) from None
    return [picture.result() for picture in pictures] if wish.as_bytes else ()


async def _keep_one(
    studio: Studio, provider: Provider, wish: Wish, name: str, *, budget: CallBudget, deadline: float
) -> bytes:
    try:
        content = await draw(studio, provider, wish, deadline=deadline, budget=budget)
        await studio.store.put(name, content)
    except BaseException:
        # At once: the group cancels the other images' tasks in a later turn of the loop, and one might send till then.
        budget.close()
        raise
    return content if wish.as_bytes else b""


async def draw(
    studio: Studio, provider: Provider, wish: Wish, *, deadline: float, budget: CallBudget | None = None
) -> bytes:
    """One picture in the format that is wished for, on the budget of its request, or one of its own. Raises what
    `Provider.draw` raises.
    """
    request = DrawRequest(wish.prompt, wish.size, budget or CallBudget())
    picture = await provider.draw(request, deadline=deadline)
    return (await studio.convert(picture, wish.format)).content


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
