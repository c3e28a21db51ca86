"""Keeps images in a folder of this machine, or of a file system that machines share."""

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from app.core import files
from app.core.logs import logger
from app.core.settings import ConfigurationError
from app.storage import CHUNK_BYTES, Stored, StoreUnavailable, checked, no_chunks

_INCOMING = "incoming"
_SHARD_CHARACTERS = 2
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe in the folder does not block

Result = TypeVar("Result")


class FilesystemStore:
    """A Store between `open` and `close`. Its own threads wait for the disk, never the event loop."""

    def __init__(self, folder: Path, *, threads: int = 8, queue_max: int = 1024) -> None:
        self._disk = _Disk(folder)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._free_slots = threads + queue_max

    async def open(self) -> None:
        """Makes the folder unless it exists, and removes the leftovers of puts that crashed.

        Raises ConfigurationError where the folder cannot be used.
        """
        with _as_configuration_error():
            await self._in_thread(self._disk.open)

    async def close(self) -> None:
        """Waits for running work, then closes the folder."""
        await asyncio.to_thread(self._threads.shutdown)
        self._disk.close()

    async def check(self) -> None:
        """Writes, reads and removes a file. Raises ConfigurationError, with one sentence, where that fails."""
        with _as_configuration_error():
            await self._in_thread(self._disk.try_out)

    async def put(self, name: str, content: bytes) -> None:
        await self._admitted("put", partial(self._disk.put, checked(name), content))

    async def get(self, name: str, *, start: int = 0, end: int | None = None) -> Stored | None:
        file = await self._admitted("get", partial(self._disk.file, checked(name)))
        if file is None:
            return None
        start = min(start, file.size)
        end = file.size if end is None else max(start, min(end, file.size))
        chunks = self._chunks(file, start, end) if start < end else no_chunks()
        return Stored(file.size, start, end, chunks)

    async def address(self, name: str) -> None:
        checked(name)

    async def delete(self, name: str) -> None:
        await self._admitted("delete", partial(self._disk.delete, checked(name)))

    async def _admitted(self, operation: str, function: Callable[[], Result]) -> Result:
        """The function's result, from a thread. Raises StoreUnavailable at once where the queue is full."""
        if self._free_slots == 0:
            raise StoreUnavailable
        self._free_slots -= 1
        future = self._threads.submit(function)
        loop = asyncio.get_running_loop()
        # The slot is released when the work ends, even if its caller was cancelled: the thread is busy until then.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release_slot))
        with _as_unavailable(operation):
            return await asyncio.wrap_future(future)

    def _release_slot(self) -> None:
        self._free_slots += 1

    async def _in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _chunks(self, file: "_File", start: int, end: int) -> AsyncIterator[bytes]:
        # Without a slot: an admitted read goes on to its end, and each reader queues one chunk at a time.
        while start < end:
            with _as_unavailable("get"):
                chunk = await self._in_thread(partial(file.read, start, min(CHUNK_BYTES, end - start)))
            start += len(chunk)
            yield chunk


class _Disk:
    """A file for each image, mode 0600, in one of 1,024 folders, 0700, by the last two characters of its id.

    Ids begin with their time: by their first characters, all images of a day would share a folder. Only files in the
    folder itself are opened: no symbolic link is followed, and no name becomes a path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = -1
        self._durable_shards: set[str] = set()

    def open(self) -> None:
        files.make_folder(self._folder)
        self._root = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        self._make_folder(_INCOMING)
        with self._entered(_INCOMING) as incoming:
            files.remove_leftovers(incoming)

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def try_out(self) -> None:
        name = f"check_{secrets.token_hex(8)}"
        self.put(name, name.encode())
        file = self.file(name)
        if file is None or file.read(0, file.size) != name.encode():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.delete(name)

    def put(self, name: str, content: bytes) -> None:
        shard = _shard(name)
        self._make_folder(shard)
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
def _as_configuration_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"The folder for pictures cannot be used: {error.strerror}") from None
