"""What has become of a request, as its account sees it: its status, its place in the queue, and each of its images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.prices import format_amount
from app.core.errors import ApiError
from app.core.security import KeyEnvironment, is_id, without_random
from app.generations.collaborators import Generations
from app.generations.errors import GenerationNotFound
from app.generations.records import UNFINISHED, GenerationRecord, record_of
from app.generations.spec import Caller, Delivered
from app.models import Generation, GenerationStatus

_POSITION = text("""
with own as (
  select l.account_id, l.class, l.weight, (
    select count(*) from (
      select from generations g
      where g.key_id = any(
          array(select k.key_id from lane_keys k where k.account_id = l.account_id and k.class = l.class)
        )
        and g.class = l.class and g.status = 'queued' and g.id <= :id limit 10000
    ) before
  ) as place
  from lanes l where l.account_id = :account_id and l.class = :class
)
select coalesce(sum(case
  when l.class <> own.class then l.waiting
  when l.account_id = own.account_id then own.place
  else least(l.waiting, ceil(own.place::float8 / own.weight) * l.weight) end), 1)::bigint
from own join lanes l on l.waiting > 0 and l.class in (own.class, 'now')
""")
"""How many images are drawn before the one `id`, and it: lanes take turns, each gives as many at a time as its weight
says, and what is not urgent comes last. Rough: lanes change, and what an account may have running is not looked at.
"""


@dataclass(frozen=True)
class ImageState:
    """One image of a request."""

    id: str
    url: str | None
    status: GenerationStatus
    error: ApiError | None


@dataclass(frozen=True)
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
    # The ids of a request begin with the same time: this reads one millisecond of the primary key.
    moment = without_random(generation_id)
    statement = (
        select(Generation)
        .where(Generation.id >= moment, Generation.id < f"{moment}~", Generation.account_id == account_id)
        .where(or_(Generation.id == generation_id, Generation.request_id == generation_id))
        .order_by(Generation.id)
    )
    if environment is not None:
        statement = statement.where(Generation.environment == environment)
    async with generations.sessions.begin() as session:
        rows = {row.id: row for row in await session.scalars(statement)}
        if generation_id not in rows:
            raise GenerationNotFound
        row = rows[generation_id]
        if row.status == "delivered" and row.deleted_at is not None:
            raise GenerationNotFound
        position = await _position(session, row) if row.status == "queued" else None
    return _state(generations, list(rows.values()), row.request_id, position)


def of_delivered(generations: Generations, caller: Caller, made: Delivered) -> GenerationState:
    """The request that was just recorded as delivered, as `find` shows it: without reading it back."""
    return GenerationState(
        id=made.id,
        url=made.url,
        prompt=made.prompt,
        model=made.model,
        size=made.size,
        quality=made.quality,
        format=made.format,
        price=format_amount(made.price),
        currency=generations.catalogue.catalogue.currency,
        environment=caller.environment,
        key_id=caller.key_id,
        created_at=made.created_at,
        inputs=made.inputs,
        status="delivered",
        error=None,
        started_at=None,
        delivered_at=made.created_at,
        expires_at=None,
        request_id=made.id,
        position=None,
        outputs=[ImageState(each, url, "delivered", None) for each, url in zip(made.ids, made.urls, strict=True)],
    )


async def _position(session: AsyncSession, row: Generation) -> int:
    values = {"id": row.id, "account_id": row.account_id, "class": row.generation_class}
    position: int = (await session.execute(_POSITION, values)).scalar_one()
    return position


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
