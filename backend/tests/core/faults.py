"""Interrupts a start at one chosen system call: by a full disk, a killed process or a power cut."""

import errno
import io
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from tests.harness import PATIENCE_SECONDS

FORKS = multiprocessing.get_context("forkserver")
"""Forks processes quickly, from a server process that has imported all modules."""
FORKS.set_forkserver_preload(["pytest", "app.core.embedded", "app.core.settings", "tests.core.faults"])

_ASKED_OF_THE_DISK = ("open", "write", "fsync", "rename", "replace", "link", "mkdir", "symlink")


NEVER = 1_000_000
"""The number of a call that no start reaches."""


@dataclass
class Fault:
    """A fault at call number `at` of the calls that use the disk, counted from 0."""

    at: int
    happen: Callable[[], None]
    calls: list[str] = field(default_factory=list)
    unsynced: set[int] = field(default_factory=set)
    """The inodes of files that were written and not synced."""

    @property
    def happened(self) -> bool:
        return len(self.calls) > self.at

    def counted(self, name: str, real: Callable[..., Any], part: Callable[[], object] = lambda: None) -> Any:
        """The result of `real`; at the fault only `part` is done."""
        self.calls.append(name)
        if len(self.calls) - 1 == self.at:
            part()
            self.happen()
        return real()


@contextmanager
def fault(at: int, happen: Callable[[], None]) -> Iterator[Fault]:
    """For the length of the `with`, calls of `os` that ask the disk for something are counted, and so is what files
    that Python opens are asked to write; at number `at`, `happen` is called first. Of a write, half has been done.
    """
    tempfile.gettempdir()  # its first call writes to folders
    fault = Fault(at, happen)
    with pytest.MonkeyPatch.context() as patched:
        for name in _ASKED_OF_THE_DISK:
            patched.setattr(os, name, _counted_call(fault, name, getattr(os, name)))
        patched.setattr(io, "open", _counted_open(fault, io.open))
        yield fault


def full() -> None:
    """A disk without free space."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def reason(refused: type[Exception], start: Callable[[], object]) -> str:
    """The text of the error that ended the start; empty where none did."""
    try:
        start()
    except refused as error:
        return str(error)
    return ""


def dies_at(at: int, start: Callable[[Path], object], folder: Path, *, power_cut: bool) -> bool:
    """Whether another process, which did `start(folder)`, was killed at its call number `at`: it may need fewer.

    With `power_cut`, what it had written in the folder without asking for it to be on the disk is lost.
    """
    process = FORKS.Process(target=_die_at, args=(at, start, folder, power_cut))
    process.start()
    process.join(PATIENCE_SECONDS)
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def _die_at(at: int, start: Callable[[Path], object], folder: Path, power_cut: bool) -> None:
    def die() -> None:
        if power_cut:
            for path in folder.rglob("*"):
                if path.lstat().st_ino in fatal.unsynced:
                    os.truncate(path, 0)
        os.kill(os.getpid(), signal.SIGKILL)

    with fault(at, die) as fatal:
        start(folder)


def _counted_call(fault: Fault, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        if given[0] == os.devnull:
            return real(*given, **named)
        if name == "write":
            return _counted_write(fault, given[0], partial(real, given[0]), given[1])
        result = fault.counted(name, lambda: real(*given, **named))
        if name == "fsync":
            fault.unsynced.discard(os.fstat(given[0]).st_ino)
        return result

    return call


def _counted_write(fault: Fault, descriptor: int, write: Callable[[Any], Any], content: Any) -> Any:
    fault.unsynced.add(os.fstat(descriptor).st_ino)
    return fault.counted("write", lambda: write(content), lambda: write(content[: len(content) // 2]))


def _counted_open(fault: Fault, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real(file, mode, *given, **named)
        if not isinstance(file, int):
            fault.counted("open", lambda: None)
        return _CountedFile(fault, real(file, mode, *given, **named))

    return call


class _CountedFile:
    """An open file whose writes are counted as calls."""

    def __init__(self, fault: Fault, file: Any) -> None:
        self._fault, self._file = fault, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: Any) -> Any:
        return _counted_write(self._fault, self._file.fileno(), self._file.write, content)
