"""The folder of images on a disk: where each image lies in it, and how it gets there so that a crash loses nothing."""

import errno
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import cache
from pathlib import Path

from app.core import files
from app.storage import StoredFile, checked, is_image_name
from app.storage.gathered_puts import NewImage, Outcome

_INCOMING = "incoming"
_SHARD_CHARACTERS = 2
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe in the folder does not block


class Disk:
    """A file for each image, mode 0600, in one of 1,024 folders, 0700, by the last two characters of its id.

    Ids begin with their time: by their first characters, all images of a day would share a folder. Only files in the
    folder itself are opened: no symbolic link is followed, and no name becomes a path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = -1
        self._durable: set[str] = set()

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
        [outcome] = self.put([NewImage(name, content)])
        if outcome is not None:
            raise outcome
        try:
            file = self.file(name)
            if file is None or file.read(0, file.size) != content:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        finally:
            self.delete(name)

    def free_bytes(self) -> int:
        status = os.statvfs(self._root)
        return status.f_bavail * status.f_frsize

    def put(self, images: Sequence[NewImage]) -> Sequence[Outcome]:
        """Writes them together: all are filled before the first is waited for, and all renamed before their folders
        are. Returns the outcome of each, in that order.
        """
        puts = [_Put(each) for each in images]
        self._put(puts)
        lost = [each for each in puts if isinstance(each.outcome, FileNotFoundError)]
        if lost:  # somebody has removed a folder
            self._durable.difference_update([_INCOMING], (each.shard for each in lost))
            for each in lost:
                each.outcome = None
            self._put(lost)
        return [each.outcome for each in puts]

    def _put(self, puts: "Sequence[_Put]") -> None:
        with ExitStack() as opened:
            folder = cache(lambda name: opened.enter_context(self._made_and_entered(name)))
            try:
                _each(puts, lambda put: put.fill(folder(_INCOMING)))
                _each(puts, lambda put: put.sync())
                _each(puts, lambda put: put.rename(folder(put.shard)))
                for shard, renamed in _by_shard(puts).items():
                    try:
                        files.sync_folder(folder(shard))
                    except OSError as error:  # it is told once, and may have lost any of them
                        for put in renamed:
                            put.outcome = error
            finally:
                for put in puts:
                    put.drop()

    def file(self, name: str) -> "OpenImage | None":
        try:
            with self._entered(_shard(name)) as folder:
                return OpenImage(os.open(name, _TO_READ, dir_fd=folder))
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

    def _made_and_entered(self, name: str) -> AbstractContextManager[int]:
        if name not in self._durable:
            self._make_folder(name)
        return self._entered(name)

    def _make_folder(self, name: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._root)
        # Also where another process has just made it: that process may not have synced it yet.
        files.sync_folder(self._root)
        self._durable.add(name)

    def _entered(self, name: str) -> AbstractContextManager[int]:
        return files.opened_folder(name, dir_fd=self._root, follow_symlinks=False)


class _Put:
    """An image on its way to the disk, step by step."""

    def __init__(self, image: NewImage) -> None:
        self.shard = _shard(image.name)
        self.outcome: Outcome = None
        self._image = image
        self._file: files.NewFile | None = None

    def fill(self, incoming: int) -> None:
        self._file = files.NewFile(self._image.name, self._image.content, folder=incoming)

    def sync(self) -> None:
        if self._file is not None:
            self._file.sync()

    def rename(self, folder: int) -> None:
        if self._file is not None:
            self._file.rename(self._image.name, folder=folder)
            self._file = None

    def drop(self) -> None:
        """Removes the file, unless it was renamed."""
        if self._file is not None:
            self._file.remove()
            self._file = None


def _each(puts: Iterable[_Put], step: Callable[[_Put], None]) -> None:
    """Takes the step with each put that has not failed. An OSError is the outcome of that one alone."""
    for put in puts:
        if put.outcome is None:
            try:
                step(put)
            except OSError as error:
                put.outcome = error


def _by_shard(puts: Iterable[_Put]) -> Mapping[str, Sequence[_Put]]:
    """Those that have not failed."""
    shards = defaultdict[str, list[_Put]](list)
    for put in puts:
        if put.outcome is None:
            shards[put.shard].append(put)
    return shards


class OpenImage:
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
