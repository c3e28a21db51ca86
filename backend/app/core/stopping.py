"""How signals end this process: SIGTERM, SIGINT and SIGHUP, past no `finally`."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """The number of the signal that asked this process to stop; None before that."""

    number: int | None = None


@contextmanager
def signals_as_exits() -> Iterator[Stop]:
    """Inside the `with`, SIGTERM, SIGHUP and Ctrl-C raise SystemExit, so that every `finally` stops what it started.
    Where `number` has been set by then, the `with` ends with the exit status of that signal.

    uvicorn raises the signal that ended it once more after its own clean-up; by default that would end this process
    at once, past every `finally`.
    """
    stop = Stop()

    def exit_by(number: int, _frame: FrameType | None) -> None:
        # An exception that is raised in some callbacks, such as the import system's, is lost: so whatever runs reads
        # the number too, before it waits.
        stop.number = number
        sys.exit(128 + number)

    before = {number: signal.signal(number, exit_by) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.getsignal(signal.SIGHUP)
    stop_when_terminal_closes()
    try:
        yield stop
        if stop.number is not None:
            sys.exit(128 + stop.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_when_terminal_closes() -> None:
    """Makes SIGHUP do what SIGTERM does, now and later, unless it is ignored, as `nohup` has it."""
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def stop_this_process() -> None:
    """Stops it as SIGTERM does, from any thread."""
    os.kill(os.getpid(), signal.SIGTERM)
