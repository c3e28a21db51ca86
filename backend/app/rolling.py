"""Processes that serve on one socket, replaced one by one under traffic: uvicorn's server and supervisor, with that."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from types import FrameType

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from app.core.draining import Draining, count_queued, hold_off
from app.core.settings import ConfigurationError
from app.reloads import Reloads, Steps

LEAVE, DRAIN = signal.SIGUSR1, signal.SIGUSR2
"""What a worker is sent before SIGTERM: to leave because the server is to stop, or to drain because another worker has
taken its place.
"""
RELOAD = signal.SIGUSR1
"""What the first process of a server is sent for a reload."""

_START_SECONDS_MAX = 60
_ACCEPT_SECONDS_MAX = 2


def obey_supervisor(draining: Draining) -> None:
    """Has this worker do what its supervisor sends it signals for."""
    signal.signal(LEAVE, lambda *_: draining.leave())
    signal.signal(DRAIN, lambda *_: draining.begin())


class RollingServer(uvicorn.Server):
    """Serves in this process until it is stopped, or until a reload has a worker take its place, the `successor`.

    A signal ends it after `drain_seconds`, in which it takes calls and tells clients and proxies that it is leaving; a
    second signal ends it at once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: Sequence[socket.socket],
        *,
        reloads: Reloads,
        draining: Draining,
        drain_seconds: float,
    ) -> None:
        super().__init__(config)
        self.successor: Process | None = None
        self._sockets = sockets
        self._reloads = reloads
        self._draining = draining
        self._drain_seconds = drain_seconds
        self._leave_at: float | None = None
        self._has_ended = False
        signal.signal(RELOAD, lambda *_: reloads.ask())

    def serve_until_stopped(self) -> None:
        """Returns when the last request is answered. The sockets are closed then, unless there is a successor."""
        try:
            self.run(sockets=[each.dup() for each in self._sockets])  # uvicorn closes them
        except BaseException:
            self._reloads.close()
            if self.successor is not None:
                self.successor.terminate()
                self.successor.join()
            raise
        self._has_ended = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_first = self._leave_at is None and not self.should_exit
        super().handle_exit(sig, frame)
        if is_first and self._drain_seconds:
            self.should_exit = False
            self._leave_at = time.monotonic() + self._drain_seconds
            self._draining.leave()

    async def on_tick(self, counter: int) -> bool:
        if self._leave_at is None:
            self._reloads.advance(self._hand_over)
        elif time.monotonic() >= self._leave_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.successor is None:
            for seconds in _until_all_are_accepted(self._sockets[0]):
                await asyncio.sleep(seconds)
            _close(self._sockets)
        await super().shutdown(sockets)

    def _hand_over(self, config: uvicorn.Config) -> Steps:
        self.config_of_successor = config
        self.successor = yield from _started(config, self._sockets)
        self._draining.begin()
        self.should_exit = True
        while not self._has_ended:
            yield


class RollingSupervisor(Multiprocess):
    """Replaces its workers one by one at a reload. A signal ends them after `drain_seconds`, in which they take calls
    and tell clients and proxies that they are leaving; a second signal ends them at once.

    `first` is a worker that runs already.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: Sequence[socket.socket],
        *,
        reloads: Reloads,
        drain_seconds: float,
        first: Process | None = None,
    ) -> None:
        super().__init__(config, list(sockets))
        self._reloads = reloads
        self._drain_seconds = drain_seconds
        self._first = first
        self._leave_at: float | None = None
        self._replaced: Process | None = None

    def init_processes(self) -> None:
        if self._first is None:
            super().init_processes()
        else:
            self.processes.append(self._first)

    def handle_usr1(self) -> None:
        """Uvicorn calls this for RELOAD."""
        self._reloads.ask()

    def handle_signals(self) -> None:
        """Uvicorn calls this twice a second."""
        super().handle_signals()
        if self._leave_at is None:
            self._reloads.advance(self._replace_all)
        elif time.monotonic() >= self._leave_at:
            self.should_exit.set()

    def handle_int(self) -> None:
        self._leave()

    def handle_term(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._drain_seconds and self._leave_at is None:
            self._leave_at = time.monotonic() + self._drain_seconds
            for process in self.processes:
                _send(process, LEAVE)
        else:
            self.should_exit.set()

    def worker_has_left(self, pid: int) -> None:
        """Called when a worker that a reload has replaced is gone."""

    def terminate_all(self) -> None:
        self._reloads.close()
        for seconds in _until_all_are_accepted(self.sockets[0]):
            time.sleep(seconds)
        _close(self.sockets)
        super().terminate_all()

    def join_all(self) -> None:
        super().join_all()
        if self._replaced is not None:
            self._replaced.join()

    def _replace_all(self, config: uvicorn.Config) -> Steps:
        for place in range(len(self.processes)):
            try:
                started = yield from _started(config, self.sockets)
            except ConfigurationError as error:
                done = f"{place} of {len(self.processes)} workers run the new settings, the others the old ones"
                raise ConfigurationError(f"{error} {done}.") from None
            self.config = config  # of workers that take the place of one that dies
            self._replaced = replaced = self.processes[place]
            self.processes[place] = started
            _send(replaced, DRAIN)
            replaced.terminate()
            while replaced.process.is_alive():
                yield
            self._replaced = None
            if replaced.pid is not None:
                self.worker_has_left(replaced.pid)


def _started(config: uvicorn.Config, sockets: Sequence[socket.socket]) -> Generator[None, None, Process]:
    """Starts a worker, in steps, and returns it when it takes calls. Raises ConfigurationError where it does not; it is
    killed then, and when the steps are closed.
    """
    process = Process(config, list(sockets))
    process.start()
    deadline = time.monotonic() + _START_SECONDS_MAX
    is_ready = False
    try:
        while not is_ready and process.process.is_alive() and time.monotonic() < deadline:
            yield
            is_ready = process.is_ready(timeout=0)
    finally:
        if not is_ready:
            process.kill()
            process.join()
    if not is_ready:
        raise ConfigurationError("A worker cannot start with the new settings; the log has the reason.")
    return process


def _until_all_are_accepted(listener: socket.socket) -> Iterator[float]:
    """Lets nobody connect any more; yields seconds to sleep, until all that have connected are accepted."""
    hold_off(listener)
    deadline = time.monotonic() + _ACCEPT_SECONDS_MAX
    yield 0.05  # who is just connecting, connects
    while count_queued(listener) and time.monotonic() < deadline:
        yield 0.01


def _send(process: Process, number: signal.Signals) -> None:
    if process.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()
