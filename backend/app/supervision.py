"""The server and the supervisor of several workers: a signal that came too early stops them too, and what becomes of
the processes is logged.
"""

import signal
import socket
from collections.abc import Sequence
from typing import Any

import uvicorn

from app.core.logs import logger
from app.core.metrics.shared import WorkersMetrics
from app.core.stopping import Stop
from app.rolling import RollingServer, RollingSupervisor


class Server(RollingServer):
    """Stops after its startup if a signal had come before uvicorn's own handlers were installed. Logs its stop."""

    def __init__(self, config: uvicorn.Config, sockets: Sequence[socket.socket], stop: Stop, **named: Any) -> None:
        super().__init__(config, sockets, **named)
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.should_exit = self.should_exit or self._stop.number is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.successor is None:
            _log_stop(next(iter(self._captured_signals), self._stop.number))
        await super().shutdown(sockets)


class Supervisor(RollingSupervisor):
    """Ends with its workers, by SIGTERM, SIGHUP or Ctrl-C, and leaves the number of the signal in `stop`. Logs and
    counts workers that died.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: Sequence[socket.socket],
        stop: Stop,
        *,
        metrics: WorkersMetrics,
        **named: Any,
    ) -> None:
        self._stop = stop
        self._metrics = metrics
        hangup = signal.getsignal(signal.SIGHUP)
        super().__init__(config, sockets, **named)
        signal.signal(signal.SIGHUP, hangup)

    def handle_int(self) -> None:
        self._stop_by(signal.SIGINT)
        super().handle_int()

    def handle_term(self) -> None:
        self._stop_by(signal.SIGTERM)
        super().handle_term()

    def keep_subprocess_alive(self) -> None:
        before = list(self.processes)
        super().keep_subprocess_alive()
        for process, now in zip(before, self.processes, strict=True):
            if process is not now or process.exitcode is not None:
                _log_death(process.pid, process.exitcode or 0, restarted=process is not now)
            if process is not now and process.pid is not None:
                self._metrics.worker_was_replaced(process.pid)

    def worker_has_left(self, pid: int) -> None:
        self._metrics.forget_worker(pid)

    def _stop_by(self, number: int) -> None:
        self._stop.number = number
        _log_stop(number)


def _log_stop(number: int | None) -> None:
    logger.info("server_stopping", signal=_signal_name(number))


def _log_death(pid: int | None, exit_code: int, *, restarted: bool) -> None:
    """Of a worker, by the exit code that multiprocessing gives: for one that was killed, the negative signal."""
    killed_by = _signal_name(-exit_code if exit_code < 0 else None)
    code = exit_code if exit_code >= 0 else None
    logger.error("worker_died", every_time=True, pid=pid, exit_code=code, signal=killed_by, restarted=restarted)


def _signal_name(number: int | None) -> str | None:
    names = {each.value: each.name for each in signal.Signals}
    return None if number is None else names.get(number, str(number))
