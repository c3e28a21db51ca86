"""The port to wherever pictures are kept."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from app.core.errors import Unavailable

CHUNK_BYTES = 256 * 1024
"""How much of a picture is in memory at a time while it is read."""

_NAME = re.compile(r"gen_[0-9a-z]{16,64}\.(png|jpeg|webp)")


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture that is kept: its bytes from `start` up to and not including `end`, of `size` in all.

    `chunks` raises StoreUnavailable where the rest cannot be read, and never ends early. Who wants no more drops it.
    """

    size: int
    start: int
    end: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class PresignedURL:
    """A URL from which any client can get a picture without this server, for `seconds` from now."""

    url: str
    seconds: int


class Store(Protocol):
    """Keeps pictures by name, such as `gen_01kapn5vfe28fm63cjp43w44255s68.png`.

    Every method raises StoreUnavailable when the store cannot be reached or refuses, and ValueError for anything that
    is not such a name, before it reaches a disk or a network.
    """

    async def put(self, name: str, content: bytes) -> None:
        """Keeps the bytes; once this returns they outlive a crash. Whoever looks meanwhile sees nothing or all."""
        ...

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        """The bytes from `start` up to and not including `end`, as they come; None where nothing has that name.

        Where `start` is not below the size, the answer's `start` and `end` are the size, and there are no chunks.
        Likewise where `end` is not above `start`: both are `start`.
        """
        ...

    async def presigned_url(self, name: str) -> PresignedURL | None:
        """A URL of the store itself, whether or not the picture is there; None if this server is to send pictures."""
        ...

    async def delete(self, name: str) -> None:
        """Forgets it. What is not there is forgotten already."""
        ...


class StoreUnavailable(Unavailable):
    detail = "Pictures cannot be stored or read now; try again"


def checked(name: str) -> str:
    """The name. Raises ValueError for what is not the name of a picture: it could point anywhere."""
    if not _NAME.fullmatch(name):
        raise ValueError("not the name of a picture")
    return name


async def no_chunks() -> AsyncIterator[bytes]:
    """The chunks of a picture of which nothing was asked for."""
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk
