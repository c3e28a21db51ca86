"""Starts programs, and ends a process by its pid and start time: a pid alone may mean another process by then."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

PROC = Path("/proc")

Process = subprocess.Popen[bytes]

ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""That of every program, without the operator's variables and our secrets."""

start: partial[Process] = partial(subprocess.Popen, cwd="/", env=ENVIRONMENT, start_new_session=True)
"""Starts a program in a session of its own, so that Ctrl-C in our terminal does not reach it."""


def started_at(pid: int) -> str | None:
    """When, and since which boot of the machine, the process has been running; None when it has ended."""
    if not PROC.joinpath("self").exists():  # not Linux
        with start(["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)], stdout=subprocess.PIPE) as ps:
            status, _, began = ps.communicate()[0].decode().strip().partition(" ")
        return None if status.startswith("Z") else began.strip() or None
    with suppress(OSError):
        stat, boot = PROC.joinpath(str(pid), "stat"), PROC.joinpath("sys/kernel/random/boot_id")
        # The name of the program, in parentheses, may hold anything; the third field follows it.
        status, *fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        return None if status in "ZX" else f"{fields[18]} {boot.read_text().strip() if boot.exists() else ''}"
    return None


def end(pid: int, started: str | None, endings: Sequence[tuple[signal.Signals, float]]) -> None:
    """Ends the process `pid` if it started at `started`: each signal in turn, until its seconds are over."""
    for ending, seconds in endings:
        deadline = time.monotonic() + seconds
        if started is None or started_at(pid) != started:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, ending)
        while started_at(pid) == started and time.monotonic() < deadline:
            time.sleep(0.01)
