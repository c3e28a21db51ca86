"""What every generation is made with, and what it is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from app.core.db import SessionMaker
from app.core.images import ImageFormat
from app.core.pool import BoundedPool
from app.core.security import KeyEnvironment
from app.features.usage.ledger import Ledger
from app.providers import Image, Provider, Size
from app.providers.decode import convert
from app.storage import Store


@dataclass(frozen=True)
class Studio:
    """The collaborators of every generation: who draws for which keys, where pictures are kept and requests recorded,
    what URLs begin with, and how long a generation may take.
    """

    sessions: SessionMaker
    ledger: Ledger
    providers: Mapping[KeyEnvironment, Provider]
    converting: BoundedPool
    store: Store
    public_url: str
    deadline_seconds: float
    clock: Callable[[], float]

    async def convert(self, picture: Image, picture_format: ImageFormat) -> Image:
        """The picture in this format. Raises Unavailable where it has another, and too much waits to be converted."""
        if picture.format == picture_format:
            return picture  # most have it: a thread would cost more than all the rest
        return await self.converting.run(partial(convert, picture, picture_format))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for: `count` pictures of one prompt, and whether the answer is to hold their bytes."""

    prompt: str
    size: Size
    format: ImageFormat = "png"
    count: int = 1
    as_bytes: bool = False


def name_of(generation_id: str, picture_format: ImageFormat) -> str:
    """What a picture is kept as."""
    return f"{generation_id}.{picture_format}"
