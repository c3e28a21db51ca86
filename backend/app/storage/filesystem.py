"""Keeps images in a folder of this machine, or of a file system that machines share."""

import asyncio
import errno
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from app.core import files
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
    is_image_name,
    no_chunks,
)

_INCOMING = "incoming"
_SHARD_CHARACTERS = 2
_FULL = {errno.ENOSPC, errno.EDQUOT}
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe in the folder does not block


class FilesystemStore:
    """A Store between `open` and `close`. Its own threads wait for the disk, never the event loop."""

    def __init__(self, folder: Path, *, threads: int = 8, queue_max: int = 1024) -> None:
        """Reading and writing have so many threads each: however many read, what was paid is written. At most
        `queue_max` reads wait, and any number of writes: `MonitoredStore.takes_more` bounds what is bought.
        """
        self._disk = _Disk(folder)
        self._reading = BoundedPool(threads=threads, queue_max=queue_max, niceness=0, name="read-images")
        self._writing = FairPool(threads=threads, queue_max=sys.maxsize, niceness=0, name="write-images")

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
            await self._writing.run(partial(self._disk.put, name, content))

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

    async def _chunks(self, file: "_File", start: int, end: int) -> AsyncIterator[bytes]:
        # Without a slot: an admitted read goes on to its end, and each reader queues one chunk at a time.
        while start < end:
            with _as_unavailable("get"):
                chunk = await self._reading.go_on(partial(file.read, start, min(CHUNK_BYTES, end - start)))
            start += len(chunk)
            yield chunk


class _Disk:
    """A file for each image, mode 0600, in one of 1,024 folders, 0700, by the last two characters of its id.

    Ids begin with their time: by their first characters, all images of a day would share a folder. Only files in the
    folder itself are opened: no symbolic link is followed, and no name becomes a path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = -1
        self._durable_shards: set[str] = set()

    def open(self) -> None:
        files.make_folder(self.folder)
        self._root = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        self._make_folder(_INCOMING)
        with self._entered(_INCOMING) as incoming:
            files.remove_leftovers(incoming)

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def try_out(self, size: int) -> None:
        name, content = f"check_{secrets.token_hex(8)}", secrets.token_bytes(size)  # what cannot be made smaller
        self.put(name, content)
        try:
            file = self.file(name)
            if file is None or file.read(0, file.size) != content:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        finally:
            self.delete(name)

    def free_bytes(self) -> int:
        status = os.statvfs(self._root)
        return status.f_bavail * status.f_frsize

    def put(self, name: str, content: bytes) -> None:
        shard = _shard(name)
        if shard not in self._durable_shards:
            self._make_folder(shard)
        try:
            self._put(name, content, shard)
        except FileNotFoundError:  # somebody has removed the folder
            self._make_folder(shard)
            self._put(name, content, shard)

    def _put(self, name: str, content: bytes, shard: str) -> None:
        with self._entered(_INCOMING) as incoming, self._entered(shard) as folder:
            with files.new_file(name, content, folder=incoming) as temporary:
                os.rename(temporary, name, src_dir_fd=incoming, dst_dir_fd=folder)
            files.sync_folder(folder)

    def file(self, name: str) -> "_File | None":
        try:
            with self._entered(_shard(name)) as folder:
                return _File(os.open(name, _TO_READ, dir_fd=folder))
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError), self._entered(_shard(name)) as folder:
            os.unlink(name, dir_fd=folder)
            files.sync_folder(folder)  # so that a crash does not bring it back

    def shards(self) -> Sequence[str]:
        with os.scandir(self._root) as entries:
            folders = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
        return [each for each in folders if len(each) == _SHARD_CHARACTERS]

    def files(self, shard: str) -> Sequence[StoredFile]:
        found = []
        with self._entered(shard) as folder, os.scandir(folder) as entries:
            for each in entries:
                with suppress(FileNotFoundError):  # it was deleted meanwhile
                    if is_image_name(each.name) and each.is_file(follow_symlinks=False):
                        status = each.stat(follow_symlinks=False)
                        found.append(StoredFile(each.name, status.st_size, status.st_mtime))
        return found

    def sizes(self, names: Sequence[str]) -> Mapping[str, int]:
        found = ((name, self.file(checked(name))) for name in names)
        return {name: file.size for name, file in found if file is not None}

    def _make_folder(self, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=self._root)
        except FileExistsError:
            if name in self._durable_shards:
                return
        # Also where another process has just made it: that process may not have synced it yet.
        files.sync_folder(self._root)
        self._durable_shards.add(name)

    def _entered(self, name: str) -> AbstractContextManager[int]:
        return files.opened_folder(name, dir_fd=self._root, follow_symlinks=False)


class _File:
    """An open file, closed when its last reference is dropped: a reader that never begins is not closed otherwise."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = files.regular_size(descriptor)

    def read(self, start: int, length: int) -> bytes:
        """At least one byte, at most `length`. Raises OSError where the file has become too short for that."""
        chunk = os.pread(self._descriptor, length, start)
        if not chunk:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return chunk

    def __del__(self) -> None:
        os.close(self._descriptor)


def _shard(name: str) -> str:
    return name.partition(".")[0][-_SHARD_CHARACTERS:]


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
