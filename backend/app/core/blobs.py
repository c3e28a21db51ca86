"""Bytes that a client sent and that a request needs for a while: in memory within a bound, beyond it in files."""

import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from errno import ENOSPC
from functools import partial
from hashlib import sha256
from pathlib import Path
from shutil import disk_usage
from tempfile import mkstemp
from threading import Lock
from typing import TypeVar
from weakref import finalize

from app.core import files
from app.core.errors import Unavailable
from app.core.pool import BoundedPool

PIECE_BYTES = 256 * 1024
"""What is read or written at a time."""

_MEMORY_BYTES_MAX = 2 * 1024 * 1024  # of what comes in pieces: what is larger lies in a file
_RETRY_SECONDS = 10
_LEFT_FREE_BYTES = 512 * 1024 * 1024  # of the disk, which others need too: images, and the embedded PostgreSQL

Result = TypeVar("Result")


class Blob:
    """Bytes that do not change, freed when nothing refers to them any more."""

    def __init__(self, content: bytes, memory: "_Share | None" = None) -> None:
        self._content = content
        self._memory = memory
        self._sha256: bytes | None = None
        self.size = len(content)
        """In bytes."""

    @property
    def sha256(self) -> bytes:
        """Of all of them. Those of a large Blob are hashed where it is made, in a thread."""
        if self._sha256 is None:  # not a cached_property, which would hash one Blob of the process at a time
            self._sha256 = self._digest()
        return self._sha256

    def _digest(self) -> bytes:
        return sha256(self._content).digest()

    @property
    def in_memory(self) -> bytes | None:
        """All of them, without a copy; None where they lie in a file."""
        return self._content

    async def read(self) -> bytes:
        """All of them."""
        return self._content

    async def chunks(self, size: int = PIECE_BYTES) -> AsyncIterator[bytes]:
        """All of them, in pieces of this size, of which one is in memory at a time."""
        for start in range(0, self.size, size):
            yield self._content[start : start + size]

    def part(self, start: int, end: int) -> bytes:
        """Those from `start` to `end`, at most. May read a file: for threads."""
        return self._content[start:end]

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The same in pieces of PIECE_BYTES."""
        end = self.size if end is None else end
        for at in range(start, end, PIECE_BYTES):
            yield self.part(at, min(at + PIECE_BYTES, end))


class BlobSpace:
    """Where blobs are kept: in memory while all of them together have at most `memory_bytes_max` there, beyond that in
    files without a name in `folder`, which the system frees with the process at the latest.

    Keeping and writing raise Unavailable where the files have `file_bytes_max` together, those of one account half of
    it, or the disk is nearly full.
    """

    def __init__(self, *, memory_bytes_max: int, file_bytes_max: int, folder: Path, threads: BoundedPool) -> None:
        self.memory = Allowance(memory_bytes_max)
        self.files = Allowance(file_bytes_max)
        self._folder = folder
        self._threads = threads

    async def keep(self, content: bytes) -> Blob:
        """A Blob of these bytes."""
        writer = BlobWriter(self, memory_bytes_max=len(content))
        await writer.add(content)
        return writer.finish()

    def writer(self, account: str | None = None) -> "BlobWriter":
        """For a Blob that comes in pieces, and counts as one of this account's while there is any other."""
        return BlobWriter(self, memory_bytes_max=_MEMORY_BYTES_MAX, account=account)

    async def run(self, function: Callable[[], Result]) -> Result:
        """The result of a function that reads and writes blobs, in a thread."""
        return await self._threads.run(function)

    def new_file(self, account: str | None) -> "_File":
        """For a thread. Raises OSError where the disk is nearly full."""
        files.make_folder(self._folder)
        if disk_usage(self._folder).free < _LEFT_FREE_BYTES:
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        return _File(self._folder, self._threads, _Share(self.files, account))


class Allowance:
    """So many bytes for all blobs, and half of them for those of one account. In any thread."""

    def __init__(self, total: int) -> None:
        self._free = self._total = total
        self._lock = Lock()
        self._given_back: deque[tuple[int, str | None]] = deque()
        self._of_accounts: Counter[str | None] = Counter()

    @property
    def taken(self) -> int:
        """In bytes."""
        self.take(0)
        return self._total - self._free

    def take(self, count: int, account: str | None = None) -> bool:
        """Takes so many bytes, or returns False where they are not free."""
        with self._lock:
            while self._given_back:
                self._add(*self._given_back.popleft())
            is_over_half = account is not None and self._of_accounts[account] + count > self._total // 2
            if count > self._free or is_over_half:
                return False
            self._add(-count, account)
            return True

    def give_back(self, count: int, account: str | None = None) -> None:
        """Without the lock: a collection of garbage may call this anywhere, also within `take`."""
        self._given_back.append((count, account))

    def _add(self, count: int, account: str | None) -> None:
        self._free += count
        self._of_accounts[account] -= count
        if not self._of_accounts[account]:
            del self._of_accounts[account]


class BlobWriter:
    """Collects a Blob: in memory while the space has some and it stays below `memory_bytes_max`, then in a file."""

    def __init__(self, space: BlobSpace, *, memory_bytes_max: int, account: str | None = None) -> None:
        self._space = space
        self._account = account
        self._memory_bytes_max = memory_bytes_max
        self._memory = _Share(space.memory, account)
        self._pieces: list[bytes] = []
        self._file: _File | None = None
        self.size = 0
        """In bytes, of what was written."""

    async def add(self, piece: bytes) -> None:
        """Writes the piece, in a thread where it goes into a file."""
        if not self._add_in_memory(piece):
            await self._space.run(partial(self._add_to_file, piece))

    def write(self, piece: bytes) -> None:
        """The same within a thread."""
        if not self._add_in_memory(piece):
            self._add_to_file(piece)

    def finish(self) -> Blob:
        """The Blob. Nothing may be written afterwards."""
        if self._file is not None:
            return _FileBlob(self._file, self.size)
        return Blob(b"".join(self._pieces), self._memory)

    def discard(self) -> None:
        """Drops what was written, whatever still refers to this, such as the traceback of an error. A file is closed
        when no thread writes to it any more.
        """
        self._memory, self._pieces, self._file = _Share(self._space.memory, self._account), [], None

    def _add_in_memory(self, piece: bytes) -> bool:
        size = self.size + len(piece)
        fits = self._file is None and size <= self._memory_bytes_max and self._memory.take(len(piece))
        if fits:
            self._pieces.append(piece)
            self.size = size
        return fits

    def _add_to_file(self, piece: bytes) -> None:
        file = self._file
        try:
            if file is None:
                self._file = file = self._space.new_file(self._account)
                file.append(b"".join(self._pieces))
                self._memory, self._pieces = _Share(self._space.memory, self._account), []
            file.append(piece)
        except OSError as error:
            file = None  # nor may a traceback keep it
            sentence = "There is no space for what was sent; try again later"
            raise Unavailable(sentence, retry_after_seconds=_RETRY_SECONDS) from error.with_traceback(None)
        self.size += len(piece)


class _Share:
    """What one Blob has of an allowance, free again when nothing refers to this."""

    def __init__(self, allowance: Allowance, account: str | None) -> None:
        self._allowance = allowance
        self._account = account
        self._taken = 0

    def take(self, count: int) -> bool:
        has_taken = self._allowance.take(count, self._account)
        self._taken += count * has_taken
        return has_taken

    def __del__(self) -> None:
        self._allowance.give_back(self._taken, self._account)


class _File:
    """A file that has no name, closed when nothing refers to this."""

    def __init__(self, folder: Path, threads: BoundedPool, share: _Share) -> None:
        self._descriptor, name = mkstemp(dir=folder)
        finalize(self, os.close, self._descriptor)
        Path(name).unlink()
        self._share = share
        self.threads = threads

    def append(self, content: bytes) -> None:
        if not self._share.take(len(content)):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def part(self, start: int, end: int) -> bytes:
        return os.pread(self._descriptor, end - start, start)


class _FileBlob(Blob):
    def __init__(self, file: _File, size: int) -> None:
        super().__init__(b"")
        self._file = file
        self.size = size

    def _digest(self) -> bytes:
        digest = sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.digest()

    @property
    def in_memory(self) -> None:
        return None

    async def read(self) -> bytes:
        return await self._file.threads.run(partial(self.part, 0, self.size))

    async def chunks(self, size: int = PIECE_BYTES) -> AsyncIterator[bytes]:
        for start in range(0, self.size, size):
            yield await self._file.threads.run(partial(self.part, start, start + size))

    def part(self, start: int, end: int) -> bytes:
        return self._file.part(start, min(end, self.size))
