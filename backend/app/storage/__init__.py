"""The port to image stores."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from app.core.errors import Unavailable
from app.core.images import IMAGE_FORMATS

CHUNK_BYTES = 256 * 1024
"""How much of an image is in memory at a time while it is read."""

PROBE_BYTES = 2 * 1024 * 1024
"""About the size of an image: a full disk may still take a small file."""

PAGE = 1000
"""Files that a store lists at a time, as S3 does."""

NEARLY_FULL_BYTES = 1024**3
"""Below so much free space an operator should do something."""

_NAME = re.compile(rf"(gen|upl)_[0-9a-z]{{16,64}}(\.w[1-9][0-9]{{0,4}}|\.[1-9][0-9]?)?\.({'|'.join(IMAGE_FORMATS)})")


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored image: its bytes from `start` up to and not including `end`, of `size` in all.

    `chunks` raises StoreUnavailable where the rest cannot be read, and never ends early. A reader may drop it at any
    time.
    """

    size: int
    start: int
    end: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """A URL from which any client can get an image without this server, for `seconds` from now."""

    url: str
    seconds: int


class Store(Protocol):
    """Keeps images by name, such as `gen_01kapn5vfe28fm63cjp43w44255s68.png`, and smaller copies beside them, such as
    `gen_01kapn5vfe28fm63cjp43w44255s68.w256.webp`. Uploaded images begin with `upl_`.

    Every method raises StoreUnavailable when the store cannot be reached or refuses, and ValueError for any other name,
    before it reaches a disk or a network.
    """

    async def put(self, name: str, content: bytes) -> None:
        """Keeps the bytes; once this returns they survive a crash. A concurrent reader gets nothing or all of them."""
        ...

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        """The bytes from `start` up to and not including `end`; None where nothing has that name.

        Where `start` is not below the size, the result's `start` and `end` are the size. Where `end` is not above
        `start`, both are `start`. In either case there are no chunks.
        """
        ...

    async def presigned_url(self, name: str) -> PresignedUrl | None:
        """A URL of the store itself, whether or not the image is there; None if this server is to send images."""
        ...

    async def delete(self, name: str) -> None:
        """Deletes the image. Does nothing where there is none."""
        ...


class StoredFile(NamedTuple):
    """A file of a store: an image, or a smaller copy."""

    name: str
    size: int
    changed_at: float
    """In seconds since 1970, by the store's clock."""


class ListedStore(Store, Protocol):
    """A Store whose files can be listed, which no request needs."""

    def pages(self, *, first: str = "", end: str = "~") -> AsyncIterator[Sequence[StoredFile]]:
        """All files whose names are from `first` up to and not including `end`, some at a time, in any order. Files
        that have no name of an image are left out. What is put or deleted meanwhile may be there or not.
        """
        ...

    async def sizes(self, names: Sequence[str]) -> Mapping[str, int]:
        """The size in bytes of each that is there, by name. The names are in order."""
        ...


class StoreUnavailable(Unavailable):
    detail = "Images cannot be stored or read now; try again"


class StoreBusy(StoreUnavailable):
    """Too many calls wait for this process's own threads: that says nothing about the store."""


def is_image_name(name: str) -> bool:
    """Whether it is the name of an image, of whichever attempt, or of a smaller copy."""
    return _NAME.fullmatch(name) is not None


def checked(name: str) -> str:
    """The name. Raises ValueError unless it is the name of an image: any other could be a path to another file."""
    if not is_image_name(name):
        raise ValueError("not the name of an image")
    return name


async def read_whole(store: Store, name: str) -> bytes | None:
    """All bytes of an image; None where nothing has that name. Raises StoreUnavailable."""
    stored = await store.get(name)
    return None if stored is None else b"".join([chunk async for chunk in stored.chunks])


def stored_bytes(content: bytes, start: int, end: int | None) -> Stored:
    """A part of content that is in memory, as a store would give it."""
    first, behind = min(start, len(content)), len(content) if end is None else min(end, len(content))
    return Stored(len(content), first, behind, _one_chunk(content[first:behind]))


async def _one_chunk(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def no_chunks() -> AsyncIterator[bytes]:
    """The chunks of an empty part."""
    empty: tuple[bytes, ...] = ()
    for chunk in empty:
        yield chunk
