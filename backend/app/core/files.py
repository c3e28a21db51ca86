"""The files that the program writes for itself. After a crash or on a full disk, each is whole or is not there.

Every function raises OSError where the system refuses, with the reason in `strerror` and never a word of the content.
"""

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

LEFTOVER_SECONDS = 3600
"""The age from which a temporary file belongs to no writer any more: none takes a fraction of it."""

_TEMPORARY = ".new-"  # between the final name and what no other file of any process has
_MACHINE = secrets.token_hex(8)  # processes of several machines, or containers, may have one number
_numbers = count()
_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}  # FAT, and folders that a virtual machine shares


def write(path: Path, content: bytes) -> None:
    """Make `content` the whole content of the file, mode 0600, on the disk when this returns.

    Where it raises, the file holds all of the old content or all of the new, and no temporary file is left.
    """
    with _named(path), opened_folder(path.parent) as folder:
        with new_file(path.name, content, folder=folder) as temporary:
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        sync_folder(folder)


def create_once(path: Path, content: bytes) -> bytes:
    """Make the file, mode 0600, with `content`, unless it is there; return what it holds, whole and on the disk.

    Of several processes that do this at once the first gives the file its content, and every one returns that. What is
    there is never changed, whatever it is.
    """
    with _named(path), opened_folder(path.parent) as folder:
        if not os.path.lexists(path):
            with new_file(path.name, content, folder=folder) as temporary:
                _name_unless_taken(temporary, path.name, folder)
        sync_folder(folder)  # also where another process made the file a moment ago: its own sync may be still to come
    return read(path)


def read(path: Path) -> bytes:
    """The whole content of a regular file. FileNotFoundError means that nothing has this name, not even a link."""
    with _named(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe makes nobody wait
        except FileNotFoundError:
            if path.is_symlink():
                raise OSError(errno.EINVAL, "It is a symbolic link to nothing") from None
            raise
        try:
            regular_size(descriptor)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)


def open_to_append(path: Path) -> BinaryIO:
    """The file, made with mode 0600 if it is not there, to write at its end. No program that we start inherits it."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def lock(path: Path, *, wait: bool = False) -> BinaryIO:
    """Lock the file, made if it is not there, until what is returned is closed or this process ends.

    Raises BlockingIOError where another process has the lock; with `wait`, waits until it has not.
    """
    file = open_to_append(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        file.close()
        raise
    return file


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Make the folder with exactly `mode`, and the folders missing above it with the usual one, all on the disk.

    A folder that was there stays as it is. Raises NotADirectoryError where something else has the name.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    with suppress(FileExistsError):
        folder.mkdir(mode, parents=True)
        folder.chmod(mode)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    for each in missing:
        with suppress(PermissionError):  # a folder may let us make names in it and not let us open it
            sync(each.parent)


def remove_folder(folder: Path, names: Iterable[str]) -> None:
    """Remove the files and links of these names, then the folder if it is empty. Raises nothing, follows no link."""
    with suppress(OSError):
        with opened_folder(folder, follow_symlinks=False) as opened:
            for name in names:
                with suppress(OSError):
                    os.unlink(name, dir_fd=opened)
        folder.rmdir()


def sync(path: Path) -> None:
    """Put the content of the file, or the names in the folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_folder(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: int) -> None:
    """Put the names in the opened folder on the disk: without it a crash may take the name from a file that is safe.

    Some file systems cannot be asked to (EINVAL); there it is left to them, as PostgreSQL does.
    """
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


@contextmanager
def opened_folder(folder: Path | str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Iterator[int]:
    """The folder's descriptor."""
    flags = os.O_RDONLY | os.O_DIRECTORY | (0 if follow_symlinks else os.O_NOFOLLOW)
    descriptor = os.open(folder, flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def new_file(name: str, content: bytes, *, folder: int) -> Iterator[str]:
    """The temporary name of a new file in the opened folder, mode 0600, which holds all of `content`, on the disk.

    Within the `with` it is to get its final name instead. Where that raises, the file is removed.
    """
    file = NewFile(name, content, folder=folder)
    try:
        file.sync()
        yield file.temporary
    except BaseException:
        file.remove()
        raise


class NewFile:
    """A file in an opened folder, mode 0600, which holds all of its content under a temporary name: to be put on the
    disk with `sync`, then renamed, or removed.

    Of several that are filled before the first is synced, the file system writes many in one commit of its journal.
    """

    def __init__(self, name: str, content: bytes, *, folder: int) -> None:
        self.temporary = f"{name}{_TEMPORARY}{_MACHINE}-{os.getpid()}-{next(_numbers)}"
        self._folder = folder
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._descriptor = os.open(self.temporary, flags, 0o600, dir_fd=folder)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BaseException:
            self.remove()
            raise

    def sync(self) -> None:
        """Put the content on the disk. Nothing can be written to the file after this."""
        try:
            os.fsync(self._descriptor)
        finally:
            self._close()

    def rename(self, name: str, *, folder: int) -> None:
        """Give the file its final name, in another opened folder of the same file system."""
        os.rename(self.temporary, name, src_dir_fd=self._folder, dst_dir_fd=folder)

    def remove(self) -> None:
        """Remove the file, unless it was renamed. Raises nothing."""
        self._close()
        _remove(self.temporary, self._folder)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _remove(name: str, folder: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def regular_size(descriptor: int) -> int:
    """The size in bytes of an open regular file. Raises OSError for anything else."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "It is not a regular file")
    return status.st_size


def remove_leftovers(folder: int) -> None:
    """Remove what killed writers have left in the opened folder: temporary files that are LEFTOVER_SECONDS old.

    A younger one may belong to another process that is writing it now.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if _TEMPORARY in entry.name and entry.is_file(follow_symlinks=False) and _age(entry) > LEFTOVER_SECONDS:
                    os.unlink(entry.name, dir_fd=folder)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An OSError that is raised within gets the name of the file, instead of a temporary name or none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _name_unless_taken(temporary: str, name: str, folder: int) -> None:
    """Give the finished temporary file its name in one step, unless another process was first."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # No process can make a link here, so all of them come this way, one after the other; closing `folder` unlocks.
        fcntl.flock(folder, fcntl.LOCK_EX)
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    _remove(temporary, folder)


def _age(entry: os.DirEntry[str]) -> float:
    return time.time() - entry.stat(follow_symlinks=False).st_mtime
