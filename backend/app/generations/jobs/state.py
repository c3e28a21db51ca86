"""What has become of a request, as its account sees it: its status, its place in the queue, and each of its images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from app.catalogue.prices import format_amount
from app.core.errors import ApiError
from app.core.security import KeyEnvironment, is_id
from app.generations.collaborators import Generations
from app.generations.errors import GenerationNotFound
from app.generations.jobs.job import Queued
from app.generations.ledger.queue import PendingRecord
from app.generations.places import Waiting
from app.generations.records import UNFINISHED, GenerationRecord, record_of
from app.generations.spec import Caller, Delivered
from app.models import Generation, GenerationStatus


class ImageState(NamedTuple):
    """One image of a request."""

    id: str
    url: str | None
    status: GenerationStatus
    error: ApiError | None


@dataclass
class GenerationState(GenerationRecord):
    """A request, by the id of its first image, or another of its images, by that image's id.

    A request is delivered where any of its images is, and its URL is that of the first of these; else it is what its
    first image is.
    """

    request_id: str
    position: int | None
    """Roughly how many images are drawn before it, and it: 1 is next. None for one that is not queued."""
    outputs: Sequence[ImageState]
    """The images of the request, in order; or the one image."""

    @property
    def has_ended(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def delivered_ids(self) -> Sequence[str]:
        return [each.id for each in self.outputs if each.status == "delivered"]


async def find(
    generations: Generations, *, account_id: str, generation_id: str, environment: KeyEnvironment | None = None
) -> GenerationState:
    """The generation of the account with this id, whatever its status; with an environment, of that one alone.

    Raises GenerationNotFound for what is another's, was delivered and deleted since, or never was.
    """
    if not is_id("gen", generation_id):
        raise GenerationNotFound
    rows = {row.id: row for row in await generations.request_rows.ask(generation_id)}
    row = rows.get(generation_id)
    if row is None or row.account_id != account_id or row.environment != (environment or row.environment):
        raise GenerationNotFound
    if row.status == "delivered" and row.deleted_at is not None:
        raise GenerationNotFound
    is_queued, waiting = row.status == "queued", Waiting(row.id, account_id, row.generation_class)
    position = await generations.places.ask(waiting) if is_queued else None
    return _state(generations, list(rows.values()), row.request_id, position)


def of_delivered(generations: Generations, caller: Caller, made: Delivered) -> GenerationState:
    """The request that was just recorded as delivered, as `find` shows it: without reading it back."""
    outputs = [ImageState(each, url, "delivered", None) for each, url in zip(made.ids, made.urls, strict=True)]
    price, created_at, inputs = made.price, made.created_at, made.inputs
    return _of_now(generations, caller, made, outputs, url=made.url, price=price, created_at=created_at, inputs=inputs)


async def of_queued(generations: Generations, caller: Caller, queued: Queued) -> GenerationState:
    """The request that was just recorded as waiting, as `find` shows it: nothing is read but its place."""
    record, terms, created_at, inputs = queued
    position = await generations.places.ask(Waiting(record.id, caller.account_id, terms.job_class))
    outputs = [ImageState(each, None, "queued", None) for each in record.ids]
    price, expires_at = generations.shown_price(record), created_at + timedelta(seconds=terms.expires_seconds)
    return _of_now(
        generations,
        caller,
        record,
        outputs,
        url=generations.url(record.id, record.format),
        price=price,
        created_at=created_at,
        inputs=inputs,
        expires_at=expires_at,
        position=position,
    )


def _of_now(
    generations: Generations,
    caller: Caller,
    request: Delivered | PendingRecord,
    outputs: Sequence[ImageState],
    *,
    url: str,
    price: int,
    created_at: datetime,
    inputs: Sequence[str | None],
    expires_at: datetime | None = None,
    position: int | None = None,
) -> GenerationState:
    status = outputs[0].status
    return GenerationState(
        id=request.id,
        url=url,
        prompt=request.prompt,
        model=request.model,
        size=request.size,
        quality=request.quality,
        format=request.format,
        price=format_amount(price),
        currency=generations.catalogue.catalogue.currency,
        environment=caller.environment,
        key_id=caller.key_id,
        created_at=created_at,
        inputs=inputs,
        status=status,
        error=None,
        started_at=None,
        delivered_at=created_at if status == "delivered" else None,
        expires_at=expires_at,
        request_id=request.id,
        position=position,
        outputs=outputs,
    )


def _state(
    generations: Generations, rows: Sequence[Generation], request_id: str, position: int | None
) -> GenerationState:
    images = [record_of(generations, each) for each in rows]
    urls = [None if row.deleted_at else image.shown_url for row, image in zip(rows, images, strict=True)]
    outputs = [ImageState(each.id, url, each.status, each.error) for each, url in zip(images, urls, strict=True)]
    shown = next((image for image, url in zip(images, urls, strict=True) if url is not None), images[0])
    return GenerationState(
        **vars(replace(shown, id=images[0].id)), request_id=request_id, position=position, outputs=outputs
    )
