"""Programs that die, freeze and thaw as the host that they run on would."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from app.core.processes import PROC, Process, start
from tests.harness import looks

_LOOK_SECONDS = 0.05


class Host:
    """A program, and all that it starts: whatever works in this host's folder, or below it."""

    def __init__(self, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self._command = command
        self._environment = environment
        self._process: Process | None = None

    def start(self) -> None:
        """Begins to run it; returns at once."""
        with self.log.open("ab") as log:
            self._process = start(
                self._command, cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def kill(self, *, below: str = ".") -> None:
        """Ends all of it at once, as a power cut would; or what works in a folder of the host's."""
        for _ in looks():
            if not self._signal(signal.SIGKILL, below=below):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        if self._process is not None and below == ".":
            await asyncio.to_thread(self._process.wait)

    def freeze(self) -> None:
        """All of it stands still. The kernel goes on to take what is sent to it."""
        while self._signal(signal.SIGSTOP, besides="T"):
            pass

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals, *, below: str = ".", besides: str = "") -> int:
        """Sends a signal to each process that is not in this state; returns to how many."""
        sent = 0
        for pid in [int(each.name) for each in PROC.glob("[0-9]*")]:
            with suppress(OSError), _held(pid) as descriptor:
                if _folder_of(pid).is_relative_to(self.folder / below) and _state(pid) != besides:
                    signal.pidfd_send_signal(descriptor, number)
                    sent += 1
        return sent


@contextmanager
def _held(pid: int) -> Iterator[int]:
    """A descriptor of this process: whatever is asked about it, and done to it, is not another's with its pid."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _folder_of(pid: int) -> Path:
    return (PROC / str(pid) / "cwd").readlink()


def _state(pid: int) -> str:
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
