"""File systems of a few pages that are really full, in the mount namespace of one test's process."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MOUNTED = ("unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c")
"""The prefix that runs a shell script in a namespace where it may mount."""


@contextmanager
def small_disk(at: Path, options: str) -> Iterator[None]:
    """A file system in memory on the folder `at`, such as of `size=1m,nr_inodes=10`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def enlarge(at: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", at], check=True)


@contextmanager
def filled(disk: Path, *, pages: int, inodes: int) -> Iterator[None]:
    """For the length of the `with`, the disk has this many free pages and inodes."""
    fillers = []
    with suppress(OSError):
        for number in range(1000):
            filler = disk / f"filler-{number}"
            filler.touch()
            fillers.append(filler)
    with suppress(OSError), fillers[0].open("wb", buffering=0) as file:
        while file.write(bytes(PAGE_BYTES)):
            pass
    os.truncate(fillers[0], fillers[0].stat().st_size - pages * PAGE_BYTES)
    for filler in fillers[len(fillers) - inodes :]:
        filler.unlink()
    yield
    for filler in fillers:
        filler.unlink(missing_ok=True)
