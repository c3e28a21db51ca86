"""Programs that we start, and the one process that a pid meant when it was written down."""

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

_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # nothing of the operator's, none of our secrets
start: partial[Process] = partial(subprocess.Popen, cwd="/", env=_ENVIRONMENT, start_new_session=True)
"""Starts a program in a session of its own: a terminal's Ctrl-C is not for it."""


def started_at(pid: int) -> str:
    """When and in which run of the machine the process started; empty when it has ended."""
    if not PROC.joinpath("self").exists():  # not Linux
        with start(["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)], stdout=subprocess.PIPE) as ps:
            status, _, began = ps.communicate()[0].decode().strip().partition(" ")
        return "" if status.startswith("Z") else began.strip()
    with suppress(OSError):
        stat, boot = PROC.joinpath(str(pid), "stat"), PROC.joinpath("sys/kernel/random/boot_id")
        status, *fields = stat.read_text(errors="replace").rpartition(")")[2].split()  # from the third on
        return "" if status in "ZX" else f"{fields[18]} {boot.read_text().strip() if boot.exists() else ''}"
    return ""


def end(pid: int, started: str, endings: Sequence[tuple[signal.Signals, float]]) -> None:
    """Ends the process `pid`, if it is the one that started at `started`: each signal, until its seconds are over."""
    for ending, seconds in endings:
        deadline = time.monotonic() + seconds
        if not started or started_at(pid) != started:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, ending)
        while started_at(pid) == started and time.monotonic() < deadline:
            time.sleep(0.01)
