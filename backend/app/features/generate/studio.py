"""What every generation is made with, and what it is asked for."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from app.core.db import SessionMaker
from app.core.pool import BoundedPool, CancelScope
from app.core.security import KeyEnvironment
from app.features.usage.ledger import Ledger
from app.models import PictureFormat
from app.providers import Picture, Provider, Size
from app.providers.pixels import convert
from app.storage import Store


@dataclass(frozen=True)
class Studio:
    """The collaborators of every generation: who draws for which keys, where pictures are kept and requests recorded,
    what URLs begin with, and how long a generation may take.

    The stub draws in the threads of `drawing`; what any other provider sent, which is paid, is decoded in those of
    `decoding`. `cancelled_on_disconnect` cancels work once the client of the request at hand has left; paid work stays
    outside.
    """

    sessions: SessionMaker
    ledger: Ledger
    providers: Mapping[KeyEnvironment, Provider]
    drawing: BoundedPool
    decoding: BoundedPool
    store: Store
    public_url: str
    deadline_seconds: float
    clock: Callable[[], float]
    cancelled_on_disconnect: CancelScope = nullcontext

    async def convert(self, picture: Picture, picture_format: PictureFormat, *, drawn_by: Provider) -> Picture:
        """The picture in this format, converted in the threads of the provider that drew it. Raises Unavailable where
        it has another, and too much waits to be converted.
        """
        if picture.media_type == f"image/{picture_format}":
            return picture  # most have it: a thread would cost more than all the rest
        pool = self.drawing if drawn_by.is_deterministic else self.decoding
        return await pool.run(partial(convert, picture, picture_format))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for: `count` pictures of one prompt, and whether the answer is to hold their bytes."""

    prompt: str
    size: Size
    format: PictureFormat = "png"
    count: int = 1
    as_bytes: bool = False


def name_of(generation_id: str, picture_format: PictureFormat) -> str:
    """What a picture is kept as."""
    return f"{generation_id}.{picture_format}"
