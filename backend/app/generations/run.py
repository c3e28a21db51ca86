"""Drawing: by a provider that costs, between recording and settling; by the stub, from what is recorded."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import uuid4

from app.catalogue.routing import ImageTries, Plan, RoutedRequest
from app.core.errors import ApiError, Unavailable, as_api_error
from app.core.images import ImageFormat
from app.core.logs import logger, logging_with
from app.generations import settle
from app.generations.collaborators import Generations
from app.generations.ledger.queue import ImageEnd, Lease, OnHeld, PendingRecord, Recorded
from app.generations.spec import GenerationSpec, ImageError, image_name
from app.providers import DrawRequest, Image, ProviderFailed, ProviderTimeout
from app.providers.decode import InvalidImage
from app.storage import StoreUnavailable

_STORE_RETRY_SECONDS = 3  # as often as a store that fails is probed

Contents = Sequence[bytes]
"""The bytes of a request's images, in order, where the answer is to hold them and they were drawn now; else nothing."""


class Made(NamedTuple):
    """What became of a request. `recorded` names its delivered images, or those of the request that it replays."""

    recorded: Recorded
    contents: Contents
    errors: Sequence[ImageError] = ()
    """Those of the images that were drawn now and failed."""


async def record_delivered(
    generations: Generations, plan: Plan, record: PendingRecord, spec: GenerationSpec, *, as_bytes: bool
) -> Made:
    """Records a request as delivered: its images cost nothing, and are a function of what is recorded.

    Where their bytes are wanted they are drawn first: what cannot be drawn, or has lost its client, does not count.
    """
    contents: Contents = ()
    if as_bytes:
        deadline = asyncio.get_running_loop().time() + generations.lifetime.drawing_seconds
        request = DrawRequest(spec.prompt, plan.size, model=plan.model.name)
        contents = await _contents_by_stub(generations, request, record, deadline=deadline)
    recorded = await generations.ledger.record(record)
    if not recorded.is_replay:
        generations.metrics.images.ended.add(record.model, "", "delivered", number=spec.count)
    return Made(recorded, contents)


async def record_and_draw(
    generations: Generations,
    plan: Plan,
    record: PendingRecord,
    spec: GenerationSpec,
    request: DrawRequest,
    *,
    account_id: str,
    deadline: float | None = None,
    on_held: OnHeld | None = None,
) -> Made:
    """The request, delivered: its key was active when it was recorded, its images are kept, and they count. Where only
    some of its images could be drawn and kept in time, these are delivered, and the others have failed.

    Where none could, the error that all of them meet is raised, or else the first: nothing is kept, nothing counts, and
    the idempotency key is free again. What a crash leaves behind is given up when its lease is over. The time runs to
    `deadline` (of the event loop's clock), by default from here: an image that comes too late is thrown away, so that
    no two requests with one idempotency key deliver. A client that leaves changes nothing.
    """
    lifetime = generations.lifetime
    if deadline is None:
        deadline = asyncio.get_running_loop().time() + lifetime.drawing_seconds
    record.lease = Lease(uuid4(), lifetime.lease_seconds)
    recorded = await generations.ledger.record(record)
    if recorded.is_replay:
        return Made(recorded, ())
    if on_held is not None and recorded.left is not None:
        on_held(recorded.left)
    routed = RoutedRequest(plan, request, account_id, deadline)
    return await draw_recorded(generations, routed, record, recorded, as_bytes=spec.as_bytes)


async def draw_recorded(
    generations: Generations,
    routed: RoutedRequest,
    record: PendingRecord,
    recorded: Recorded,
    *,
    as_bytes: bool,
    settling_until: float | None = None,
) -> Made:
    """The rest of `record_and_draw`, for a request that is on disk and has a lease. `as_bytes` keeps the bytes of the
    images for the answer. While the ledger is away, settling is tried until `settling_until` (of the event loop's
    clock), by default once.
    """
    plan, account_id = routed.plan, routed.account_id
    if plan.is_free:
        return await _settle_free(generations, routed, record, recorded, as_bytes=as_bytes, until=settling_until)
    await _refuse_if_not_kept(generations, record)
    drawing = _Drawing(generations, routed, record, {each: ImageTries() for each in record.ids})
    with logging_with(model=plan.model.name, account=account_id), _marking_what_may_be_paid(routed):
        await _draw_or_give_up(drawing, record)
        await settle.deliver(generations, record, drawing.ends(), until=settling_until)
    delivered = [each for each in record.ids if each not in drawing.errors]
    contents = [drawing.contents[each] for each in delivered] if as_bytes else ()
    errors = [(index, drawing.errors.get(each)) for index, each in enumerate(record.ids)]
    return Made(
        recorded._replace(ids=delivered),
        contents,
        [ImageError(index, error.code) for index, error in errors if error is not None],
    )


async def _settle_free(
    generations: Generations,
    routed: RoutedRequest,
    record: PendingRecord,
    recorded: Recorded,
    *,
    as_bytes: bool,
    until: float | None,
) -> Made:
    """A request whose images the stub draws from the row for each client that looks: it has a price, or is a job. Where
    the bytes are wanted, or it is watched, they are drawn first. If that fails, or the client has left, it has failed.
    """
    contents: Contents = ()
    if as_bytes or routed.request.on_partial is not None:
        try:
            contents = await _contents_by_stub(generations, routed.request, record, deadline=routed.deadline)
        except BaseException as error:
            code = error.code if isinstance(error, ApiError) else Unavailable.code
            await asyncio.shield(settle.fail(generations, record, dict.fromkeys(record.ids, ImageEnd(code))))
            raise
    ends = dict.fromkeys(record.ids, ImageEnd(provider=routed.plan.provider))
    await settle.deliver(generations, record, ends, until=until)
    return Made(recorded, contents)


async def _contents_by_stub(
    generations: Generations, request: DrawRequest, record: PendingRecord, *, deadline: float
) -> Contents:
    async with generations.cancelled_on_disconnect():
        return [await draw_by_stub(generations, request, record.format, deadline=deadline)] * len(record.ids)


async def _refuse_if_not_kept(generations: Generations, record: PendingRecord) -> None:
    """What cannot be kept is not bought. Raises StoreUnavailable."""
    if not generations.store.takes_more:
        ends = dict.fromkeys(record.ids, ImageEnd(StoreUnavailable.code, tries=0, cost=0))
        await asyncio.shield(settle.fail(generations, record, ends))
        raise StoreUnavailable(retry_after_seconds=_STORE_RETRY_SECONDS)


@contextmanager
def _marking_what_may_be_paid(routed: RoutedRequest) -> Iterator[None]:
    """Marks every error that leaves it as one after which the request may have been paid, whatever failed: provider,
    conversion, store or ledger. A client that repeats the request by itself would have it paid again.
    """
    try:
        yield
    except Exception as raised:
        if not routed.may_have_been_paid:
            raise
        error = as_api_error(raised)
        error.may_have_been_paid = True
        if error is raised:
            raise
        logger.exception("generation_failed_after_payment")  # the request's own line names the error that it becomes
        raise error from raised


@dataclass(frozen=True)
class _Drawing:
    """The images of one request, as they are drawn and kept, each with an end of its own."""

    generations: Generations
    routed: RoutedRequest
    record: PendingRecord
    tries: Mapping[str, ImageTries]
    """What was tried for each, by id."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Of those that are kept, by id."""
    errors: dict[str, ApiError] = field(default_factory=dict)
    """Of those that have failed, by id, the first failure first."""

    def ends(self, *, if_undecided: str | None = None) -> Mapping[str, ImageEnd]:
        """How each image ended, by id; one without an error is delivered, or failed with the code `if_undecided`."""
        return {
            each: ImageEnd(
                self.errors[each].code if each in self.errors else if_undecided,
                tries.route,
                tries.provider,
                tries.calls,
                tries.cost,
                tries.provider_request_id,
            )
            for each, tries in self.tries.items()
        }

    async def draw_all(self) -> None:
        """Returns once each image is in `contents` or in `errors`. Where none is kept, raises the error that closed the
        request, or else the first.
        """
        if len(self.tries) == 1:  # nearly always: it needs no task of its own
            [only] = self.tries
            await self._draw_and_keep(only, 0)
        else:
            async with asyncio.TaskGroup() as group:
                for place, each in enumerate(self.tries):
                    group.create_task(self._draw_and_keep(each, place))
        if not self.contents:
            raise self.routed.closed_by or next(iter(self.errors.values()))

    async def _draw_and_keep(self, generation_id: str, place: int) -> None:
        tries = self.tries[generation_id]
        try:
            async with asyncio.timeout_at(self.routed.deadline):
                image = await self.routed.draw(tries, place=place)
                with logging_with(route=tries.route or "", provider=tries.provider or ""):
                    content = await _converted(self.generations, image, self.record.format, self.routed)
                    await self._keep(generation_id, content)
        except TimeoutError:
            self.errors[generation_id] = ProviderTimeout()
        except ApiError as error:
            self.errors[generation_id] = error
        except Exception as raised:
            logger.exception("image_failed")
            self.errors[generation_id] = as_api_error(raised)
        else:
            self.contents[generation_id] = content

    async def _keep(self, generation_id: str, content: bytes) -> None:
        try:
            name = image_name(generation_id, self.record.format, self.record.attempt)
            await self.generations.store.put(name, content)
        except Exception as raised:
            self.routed.close(as_api_error(raised))  # a further image would be paid for and not kept either
            raise


async def _draw_or_give_up(drawing: _Drawing, record: PendingRecord) -> None:
    """Draws all images. Where none is kept the request is settled as failed, unless others decide about it, and an
    error of theirs raised.
    """
    try:
        await drawing.draw_all()
    except BaseException as error:
        if drawing.routed.is_left(error):
            await asyncio.shield(settle.forget_images(drawing.generations, record))
        else:
            ends = drawing.ends(if_undecided=Unavailable.code)  # it may have been cancelled
            await asyncio.shield(settle.give_up(drawing.generations, record, ends))
        raise


async def _converted(generations: Generations, image: Image, image_format: ImageFormat, routed: RoutedRequest) -> bytes:
    """The image that was paid, in this format. Raises ProviderFailed where it cannot be decoded."""
    try:
        return (await generations.convert(image, image_format, compression=routed.request.compression)).content
    except InvalidImage:
        logger.error("provider_image_not_decodable", bytes=len(image.content))
        raise ProviderFailed from None


async def draw_by_stub(
    generations: Generations, request: DrawRequest, image_format: ImageFormat, *, deadline: float
) -> bytes:
    """One image of the stub in this format. Raises what `Provider.draw` raises."""
    image = await generations.catalogue.stub.draw(request, deadline=deadline)
    converted = await generations.convert(image, image_format, is_free=True, group=request.group)
    return converted.content
