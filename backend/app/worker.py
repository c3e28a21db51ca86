"""The running worker: a process that draws asynchronous generations, with the services of a server and without HTTP but
for METRICS_PORT.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import uvloop

from app import __version__
from app.assembly import Externals, open_services
from app.core.draining import Draining
from app.core.errors import ApiError, Unavailable
from app.core.logs import logger, write_pending_lines
from app.core.memory import return_large_blocks_when_freed
from app.core.metrics import Metrics
from app.core.metrics.shared import Page, shown_on_port
from app.core.process_setup import allow_descriptors, configure_logging_by
from app.core.settings import Settings
from app.core.stopping import Stop
from app.readiness import check_ready, find_degraded
from app.services import Services

_READY_SECONDS = 3


def run(settings: Settings, stop: Stop) -> None:
    """Draws asynchronous generations until a signal comes, and those that it has begun after that, for
    JOB_DEADLINE_SECONDS at most. A second signal ends the process at once, with the exit status of that signal.
    METRICS_PORT shows the metrics, `/health` and `/ready`.

    Raises ConfigurationError where METRICS_PORT cannot be had.
    """
    configure_logging_by(settings)
    allow_descriptors()
    return_large_blocks_when_freed()
    process = _Process(settings.model_copy(update={"work": True}), stop, Metrics())
    pages: Mapping[str, Page] = {"/health": lambda: (HTTPStatus.OK, {"status": "ok"}), "/ready": process.readiness}
    with shown_on_port(settings, process.metrics.families.registry, pages):
        logger.info("work_started", version=__version__, environment=settings.environment, pid=os.getpid())
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(process.work())
        finally:
            logger.info("work_stopped")
            write_pending_lines()


@dataclass
class _Process:
    settings: Settings
    stop: Stop
    metrics: Metrics
    _running: tuple[asyncio.AbstractEventLoop, Services] | None = None

    async def work(self) -> None:
        draining, is_to_stop = Draining(), asyncio.Event()
        draining.when_jobs_end(is_to_stop.set)
        with ExitStack() as stack:
            self._stop_by_signals(draining, stack)
            if self.stop.number is not None:
                return  # it came before, in a callback that has lost its exception
            async with open_services(self.settings, Externals(draining=draining), metrics=self.metrics) as services:
                self._running = asyncio.get_running_loop(), services
                await is_to_stop.wait()
                logger.info("work_stopping", signal=signal.Signals(self.stop.number or 0).name)
            self._running = None

    def _stop_by_signals(self, draining: Draining, stack: ExitStack) -> None:
        """Has the first signal begin the end, and the second end the process. `stack` takes that back."""
        loop = asyncio.get_running_loop()

        def end(number: int) -> None:
            if self.stop.number is not None:
                write_pending_lines()
                os._exit(128 + number)
            self.stop.number = number
            draining.leave()

        numbers = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGINT}
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers[signal.SIGHUP] = signal.SIGTERM
        for number, counts_as in numbers.items():
            before = signal.getsignal(number)
            loop.add_signal_handler(number, partial(end, counts_as))
            stack.callback(signal.signal, number, before)
            stack.callback(loop.remove_signal_handler, number)

    def readiness(self) -> tuple[HTTPStatus, Mapping[str, object]]:
        """What `/ready` of a server answers, from a thread."""
        try:
            if self._running is None:
                raise Unavailable("This worker is starting or has stopped")
            loop, services = self._running
            asyncio.run_coroutine_threadsafe(check_ready(services), loop).result(_READY_SECONDS)
            return HTTPStatus.OK, {"status": "ready", "degraded": find_degraded(services)}
        except ApiError as error:
            detail = error.sentence
        except TookTooLong:
            detail = "This worker does not answer"
        return HTTPStatus.SERVICE_UNAVAILABLE, {"status": 503, "code": Unavailable.code, "detail": detail}
