"""Keeps images in a folder of this machine, or of a file system that machines share."""

import asyncio
import errno
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from app.core.errors import Unavailable
from app.core.fair_queue import FairPool
from app.core.logs import logger
from app.core.pool import BoundedPool
from app.core.settings import ConfigurationError
from app.storage import (
    CHUNK_BYTES,
    PAGE,
    PROBE_BYTES,
    StoreBusy,
    Stored,
    StoredFile,
    StoreUnavailable,
    checked,
    no_chunks,
)
from app.storage.disk import Disk, OpenImage
from app.storage.gathered_puts import GatheredPuts, NewImage, Outcome

_FULL = {errno.ENOSPC, errno.EDQUOT}


class FilesystemStore:
    """A Store between `open` and `close`. Its own threads wait for the disk, never the event loop."""

    def __init__(self, folder: Path, *, threads: int = 8, queue_max: int = 1024) -> None:
        """Reading and writing have so many threads each: however many read, what was paid is written. At most
        `queue_max` reads wait, and any number of writes: `MonitoredStore.takes_more` bounds what is bought.
        """
        self._disk = Disk(folder)
        self._reading = BoundedPool(threads=threads, queue_max=queue_max, niceness=0, name="read-images")
        self._writing = FairPool(threads=threads, queue_max=sys.maxsize, niceness=0, name="write-images")
        self._puts = GatheredPuts(self._write, at_a_time=threads)

    async def open(self) -> None:
        """Makes the folder unless it exists, and removes the leftovers of puts that crashed.

        Raises ConfigurationError where the folder cannot be used.
        """
        with _as_configuration_error(self._disk.folder):
            await self._writing.run(self._disk.open)

    async def close(self) -> None:
        """Waits for running work, then closes the folder."""
        for pool in (self._writing, self._reading):
            await asyncio.to_thread(pool.close)
        self._disk.close()

    async def check(self, *, size: int = PROBE_BYTES) -> None:
        """Writes, reads and removes a file of so many bytes.

        Raises, with one sentence, StoreUnavailable for a full disk and ConfigurationError where that fails otherwise.
        """
        with _as_configuration_error(self._disk.folder):
            try:
                await self._writing.go_on(partial(self._disk.try_out, size))
            except OSError as error:
                if error.errno in _FULL:
                    raise StoreUnavailable("The disk of the folder for images is full") from None
                raise

    async def free_bytes(self) -> int:
        """What may still be written to the file system."""
        return await self._reading.go_on(self._disk.free_bytes)

    async def put(self, name: str, content: bytes) -> None:
        checked(name)
        with _as_unavailable("put"):
            await self._puts.put(NewImage(name, content))

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        checked(name)
        with _as_unavailable("get"):
            try:
                file = await self._reading.run(partial(self._disk.file, name))
            except Unavailable:
                raise StoreBusy from None
        if file is None:
            return None
        start = min(start, file.size)
        end = file.size if end is None else max(start, min(end, file.size))
        chunks = self._chunks(file, start, end) if start < end else no_chunks()
        return Stored(file.size, start, end, chunks)

    async def presigned_url(self, name: str) -> None:
        checked(name)

    async def delete(self, name: str) -> None:
        checked(name)
        with _as_unavailable("delete"):
            await self._writing.run(partial(self._disk.delete, name), group="delete")  # puts wait behind none of them

    async def pages(self, *, first: str = "", end: str = "~") -> AsyncIterator[Sequence[StoredFile]]:
        """The files of one of the 1,024 folders after the other: the names of one folder are in memory at a time."""
        with _as_unavailable("list"):
            shards = await self._reading.go_on(self._disk.shards)
        for shard in shards:
            with _as_unavailable("list"):
                found = await self._reading.go_on(partial(self._disk.files, shard))
            wanted = [each for each in found if first <= each.name < end]
            for start in range(0, len(wanted), PAGE):
                yield wanted[start : start + PAGE]

    async def sizes(self, names: Sequence[str]) -> Mapping[str, int]:
        with _as_unavailable("list"):
            return await self._reading.go_on(partial(self._disk.sizes, names))

    async def _write(self, images: Sequence[NewImage]) -> Sequence[Outcome]:
        return await self._writing.run(partial(self._disk.put, images))

    async def _chunks(self, file: OpenImage, start: int, end: int) -> AsyncIterator[bytes]:
        # Without a slot: an admitted read goes on to its end, and each reader queues one chunk at a time.
        while start < end:
            with _as_unavailable("get"):
                chunk = await self._reading.go_on(partial(file.read, start, min(CHUNK_BYTES, end - start)))
            start += len(chunk)
            yield chunk


@contextmanager
def _as_unavailable(operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "unknown")  # the error's text contains the image's name
        logger.warning("store_unavailable", store="filesystem", operation=operation, reason=reason)
        raise StoreUnavailable from None


@contextmanager
def _as_configuration_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"The folder {folder} in DATA_DIR cannot be used: {error.strerror}.") from None
