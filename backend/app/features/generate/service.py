"""What happens when a picture is asked for, and when it is looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from app.core.db import SessionMaker
from app.core.errors import Invalid, NotFound
from app.core.security import KeyEnvironment, is_id, new_timed_id
from app.features.keys.service import Caller
from app.features.usage.service import record_delivered
from app.models import Generation
from app.providers import Order, Picture, Provider, Size


class ImageNotFound(NotFound):
    code, detail = "image_not_found", "There is no such image"


@dataclass(frozen=True)
class Studio:
    """The collaborators of every generation: who draws for which keys, where it is recorded, what URLs begin with."""

    sessions: SessionMaker
    providers: Mapping[KeyEnvironment, Provider]
    public_url: str
    clock: Callable[[], float]


@dataclass(frozen=True)
class Delivered:
    """A picture that its caller was given."""

    id: str
    url: str
    prompt: str
    created_at: datetime


async def generate(studio: Studio, *, caller: Caller, prompt: str, size: Size) -> Delivered:
    """A delivered picture, recorded and counted, both committed before this returns. Nothing is drawn yet: the
    picture is a function of what is recorded, and is drawn for whoever looks at it.

    Raises Invalid for a size that the provider cannot draw, and InvalidApiKey if the key was revoked meanwhile.
    """
    provider = studio.providers[caller.environment]
    refusal = provider.refusal(size)
    if refusal is not None:
        raise Invalid([{"pointer": "#/size", "detail": refusal}])
    generation = Generation(
        id=new_timed_id("gen", now=studio.clock()),
        key_id=caller.key_id,
        prompt=prompt,
        size=str(size),
        provider=provider.name,
    )
    async with studio.sessions.begin() as session:
        await record_delivered(session, generation)
    url = f"{studio.public_url}/v1/images/{generation.id}.png"
    return Delivered(generation.id, url, generation.prompt, generation.created_at)


async def find_delivered(studio: Studio, *, generation_id: str) -> Generation:
    """The generation whose picture may be looked at. Raises ImageNotFound for any other id."""
    if not is_id("gen", generation_id):
        raise ImageNotFound
    delivered = Generation.id == generation_id, Generation.status == "delivered"
    async with studio.sessions.begin() as session:
        generation = await session.scalar(select(Generation).where(*delivered))
    if generation is None:
        raise ImageNotFound
    return generation


async def draw(studio: Studio, generation: Generation) -> Picture:
    """The picture of a delivered generation, the same bytes every time. Raises Unavailable when too much waits."""
    provider = next(each for each in studio.providers.values() if each.name == generation.provider)
    width, _, height = generation.size.partition("x")
    return await provider.draw(Order(generation.prompt, Size(int(width), int(height))))
