"""Drawing: by a provider that costs, between recording and settling; by the stub, from what is recorded."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

from app.core.errors import as_api_error
from app.core.images import ImageFormat
from app.core.logs import logger
from app.generations import settle
from app.generations.collaborators import Generations
from app.generations.ledger.queue import Lease, PendingRecord, Recorded
from app.generations.spec import GenerationSpec, image_name
from app.providers import DrawRequest, Provider, ProviderFailed, ProviderTimeout, Size
from app.providers.decode import InvalidImage

Contents = Sequence[bytes]
"""The bytes of a request's images, in order, where the answer is to hold them and they were drawn now; else nothing."""


async def draw_and_record(
    generations: Generations, provider: Provider, record: PendingRecord, spec: GenerationSpec, size: Size
) -> tuple[Recorded, Contents]:
    """The request, delivered, by a provider whose images are a function of what is recorded.

    Where their bytes are wanted they are drawn first: what cannot be drawn, or has lost its client, does not count.
    """
    contents: Contents = ()
    if spec.as_bytes:
        deadline = asyncio.get_running_loop().time() + generations.lifetime.drawing_seconds
        request = DrawRequest(spec.prompt, size)
        async with generations.cancelled_on_disconnect():
            contents = [await draw(generations, provider, request, record.format, deadline=deadline)] * spec.count
    return await generations.ledger.record(record), contents


async def record_and_draw(
    generations: Generations, provider: Provider, record: PendingRecord, spec: GenerationSpec, size: Size
) -> tuple[Recorded, Contents]:
    """The request, delivered: its key was active when it was recorded, its images are kept, and it counts.

    Where anything fails before that, nothing is kept, nothing counts, and the idempotency key is free again. What a
    crash leaves behind is given up when its lease is over. The time runs from here: an image that comes too late is
    thrown away, so that no two requests with one idempotency key deliver. A client that leaves changes nothing.
    """
    lifetime = generations.lifetime
    deadline = asyncio.get_running_loop().time() + lifetime.drawing_seconds
    record.lease = Lease(uuid4(), lifetime.lease_seconds)
    recorded = await generations.ledger.record(record)
    if recorded.is_replay:
        return recorded, ()
    request = DrawRequest(spec.prompt, size)
    with _marking_what_may_be_paid(request):
        contents = await _draw_or_give_up(generations, provider, record, request, deadline=deadline)
        await settle.deliver(generations, record)
    return recorded, contents if spec.as_bytes else ()


@contextmanager
def _marking_what_may_be_paid(request: DrawRequest) -> Iterator[None]:
    """Marks every error that leaves it as one after which the request may have been paid, whatever failed: provider,
    conversion, store or ledger. A client that repeats the request by itself would have it paid again.
    """
    try:
        yield
    except Exception as raised:
        if not request.budget.may_have_been_paid:
            raise
        error = as_api_error(raised)
        error.may_have_been_paid = True
        if error is raised:
            raise
        logger.exception("generation_failed_after_payment")  # the request's own line names the error that it becomes
        raise error from raised


async def _draw_or_give_up(
    generations: Generations, provider: Provider, record: PendingRecord, request: DrawRequest, *, deadline: float
) -> Contents:
    try:
        return await _draw_and_keep(generations, provider, record, request, deadline=deadline)
    except BaseException:
        await asyncio.shield(settle.give_up(generations, record))
        raise


async def _draw_and_keep(
    generations: Generations, provider: Provider, record: PendingRecord, request: DrawRequest, *, deadline: float
) -> Contents:
    keep = partial(_draw_and_keep_one, generations, provider, request, deadline=deadline)
    try:
        async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
            images = [group.create_task(keep(each, record.format)) for each in record.ids]
    except TimeoutError:
        raise ProviderTimeout from None
    except BaseExceptionGroup as failed:
        raise _first_of(failed) from None
    return [image.result() for image in images]


async def _draw_and_keep_one(
    generations: Generations,
    provider: Provider,
    request: DrawRequest,
    generation_id: str,
    image_format: ImageFormat,
    *,
    deadline: float,
) -> bytes:
    try:
        content = await draw(generations, provider, request, image_format, deadline=deadline)
        await generations.store.put(image_name(generation_id, image_format), content)
    except BaseException:
        # At once: the group cancels the other images' tasks in a later turn of the loop, and one might send till then.
        request.budget.close()
        raise
    return content


async def draw(
    generations: Generations,
    provider: Provider,
    request: DrawRequest,
    image_format: ImageFormat,
    *,
    deadline: float,
) -> bytes:
    """One image in this format. Raises what `Provider.draw` raises, and ProviderFailed where it cannot be converted."""
    image = await provider.draw(request, deadline=deadline)
    try:
        return (await generations.convert(image, image_format, drawn_by=provider)).content
    except InvalidImage:
        logger.error("provider_image_not_decodable", provider=provider.name, bytes=len(image.content))
        raise ProviderFailed from None


def _first_of(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = failed
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
