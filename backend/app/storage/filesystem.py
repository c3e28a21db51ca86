"""Keeps pictures in a folder of this machine, or of a file system that machines share."""

import asyncio
import errno
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from app.core.logs import logger
from app.core.settings import ConfigurationError
from app.storage import CHUNK_BYTES, Stored, StoreUnavailable, checked, no_chunks

LEFTOVER_SECONDS = 3600
"""The age from which a half-written file is nobody's any more: no put takes a fraction of it."""

_INCOMING = "incoming"
_SHARD_CHARACTERS = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_TO_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in the folder makes nobody wait

Result = TypeVar("Result")


class FilesystemStore:
    """Between `open` and `close`, a Store. The disk is waited for in threads of its own, never by the event loop."""

    def __init__(self, folder: Path, *, threads: int = 8, queue_max: int = 1024) -> None:
        self._disk = _Disk(folder)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._room = threads + queue_max

    async def open(self) -> None:
        """Makes the folder unless it is there, and removes what crashed puts have left behind.

        Raises ConfigurationError where the folder cannot be used.
        """
        with _named_for_the_operator():
            await self._in_thread(self._disk.open)

    async def close(self) -> None:
        """Lets what runs end."""
        await asyncio.to_thread(self._threads.shutdown)
        self._disk.close()

    async def check(self) -> None:
        """Writes, reads and removes a file. Raises ConfigurationError, with one sentence, where that fails."""
        with _named_for_the_operator():
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

    async def presigned_url(self, name: str) -> None:
        checked(name)

    async def delete(self, name: str) -> None:
        await self._admitted("delete", partial(self._disk.delete, checked(name)))

    async def _admitted(self, operation: str, function: Callable[[], Result]) -> Result:
        """The function's result. What finds the queue full is refused at once, and never runs."""
        if self._room == 0:
            raise StoreUnavailable
        self._room -= 1
        future = self._threads.submit(function)
        loop = asyncio.get_running_loop()
        # The place is given back when the work has ended, even if nobody waits for it any more.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        with _unavailable_if_it_fails(operation):
            return await asyncio.wrap_future(future)

    def _leave(self) -> None:
        self._room += 1

    async def _in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _chunks(self, file: "_File", start: int, end: int) -> AsyncIterator[bytes]:
        # Past the queue's limit: what was admitted is read to its end, and each reader waits for one chunk at a time.
        while start < end:
            with _unavailable_if_it_fails("get"):
                chunk = await self._in_thread(partial(file.read, start, min(CHUNK_BYTES, end - start)))
            start += len(chunk)
            yield chunk


class _Disk:
    """A file for each picture, mode 0600, in one of 1,024 folders, 0700, by the last two characters of its id.

    Ids begin with their time: by their first characters, all pictures of a day would share a folder. Only what lies
    in the folder itself is opened: no symbolic link is followed, no path is ever made of a name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = -1
        self._durable_shards: set[str] = set()

    def open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = os.open(self._folder, _FOLDER)
        self._make_folder(_INCOMING)
        with self._entered(_INCOMING) as incoming, os.scandir(incoming) as leftovers:
            for leftover in leftovers:
                _remove_if_old(incoming, leftover)

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
        shard, temporary = _shard(name), secrets.token_hex(16)
        self._make_folder(shard)
        with self._entered(_INCOMING) as incoming, self._entered(shard) as folder:
            try:
                _write(incoming, temporary, content)
                os.rename(temporary, name, src_dir_fd=incoming, dst_dir_fd=folder)
            except OSError:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=incoming)
                raise
            os.fsync(folder)  # without it a crash may take the name away from a file that is safe

    def file(self, name: str) -> "_File | None":
        try:
            with self._entered(_shard(name)) as folder:
                return _File(os.open(name, _TO_READ, dir_fd=folder))
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError), self._entered(_shard(name)) as folder:
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)  # a crash does not bring it back

    def _make_folder(self, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=self._root)
        except FileExistsError:
            if name in self._durable_shards:
                return
        os.fsync(self._root)  # also where another process made it a moment ago: its own fsync may be still to come
        self._durable_shards.add(name)

    @contextmanager
    def _entered(self, name: str) -> Iterator[int]:
        folder = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self._root)
        try:
            yield folder
        finally:
            os.close(folder)


class _File:
    """An open file, closed when the last who could read it lets go: a reader that never begins has no other end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.size = status.st_size

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


def _write(folder: int, name: str, content: bytes) -> None:
    """A new file, mode 0600, on the disk once this returns."""
    descriptor = os.open(name, _TO_WRITE, 0o600, dir_fd=folder)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_old(folder: int, leftover: os.DirEntry[str]) -> None:
    """What is young may be another process's put that is under way."""
    with suppress(FileNotFoundError):
        if time.time() - leftover.stat(follow_symlinks=False).st_mtime > LEFTOVER_SECONDS:
            os.unlink(leftover.name, dir_fd=folder)


@contextmanager
def _unavailable_if_it_fails(operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "unknown")  # the error's text has the name in it
        logger.warning("store_unavailable", store="filesystem", operation=operation, reason=reason)
        raise StoreUnavailable from None


@contextmanager
def _named_for_the_operator() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"The folder for pictures cannot be used: {error.strerror}") from None
