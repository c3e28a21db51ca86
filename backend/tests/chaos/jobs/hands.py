"""Processes that work on jobs, which a test kills, freezes and stops."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.fleet import BACKEND, STOP_SECONDS

PROGRAM = ("-m", "app.cli", "work")


def mutant(name: str) -> Sequence[str]:
    """The same program with a defect."""
    return ("-m", "tests.chaos.mutants", name, "work")


class Hands:
    """The running processes of one program, the oldest first."""

    def __init__(self, environment: Mapping[str, str], said: Path, program: Sequence[str]) -> None:
        self._environment = environment
        self._said = said
        self._program = program
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Another process. It takes jobs as soon as it can."""
        with self._said.open("ab") as output:
            command = [sys.executable, *self._program]
            process = subprocess.Popen(command, env=self._environment, cwd=BACKEND, stdout=output, stderr=output)
        self.running.append(process)
        return process

    def replace_ended(self) -> None:
        """Starts another one for each that has ended by itself, as one does that is started without a database."""
        for process in [each for each in self.running if each.poll() is not None]:
            self.running.remove(process)
            self.start()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL."""
        process.kill()
        process.wait()
        self.running.remove(process)

    def freeze(self, process: subprocess.Popen[bytes]) -> None:
        """It keeps its connections and does nothing, until it is thawed."""
        process.send_signal(signal.SIGSTOP)

    def thaw(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGCONT)

    async def stop(self, process: subprocess.Popen[bytes]) -> int:
        """SIGTERM, and its exit status."""
        process.terminate()
        status = await asyncio.to_thread(process.wait, STOP_SECONDS)
        self.running.remove(process)
        return status

    def end(self) -> None:
        for process in list(self.running):
            self.kill(process)

    @property
    def said(self) -> str:
        """What they have logged."""
        return self._said.read_text(errors="replace") if self._said.exists() else ""


@asynccontextmanager
async def hands(
    environment: Mapping[str, str], said: Path, *, count: int, program: Sequence[str] = PROGRAM
) -> AsyncIterator[Hands]:
    """So many processes, ended at the end whatever state they are in."""
    running = Hands(environment, said, program)
    try:
        for _ in range(count):
            running.start()
        yield running
    finally:
        running.end()
