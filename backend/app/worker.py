"""The running worker: a process that draws asynchronous generations, with the services of a server and without HTTP."""

import asyncio
import os
import signal
from contextlib import ExitStack
from functools import partial

import uvloop

from app import __version__
from app.assembly import Externals, open_services
from app.core.draining import Draining
from app.core.logs import logger, write_pending_lines
from app.core.memory import return_large_blocks_when_freed
from app.core.metrics import Metrics
from app.core.process_setup import allow_descriptors, configure_logging_by
from app.core.settings import Settings
from app.core.stopping import Stop


def run(settings: Settings, stop: Stop) -> None:
    """Draws asynchronous generations until a signal comes, and those that it has begun after that, for
    JOB_DEADLINE_SECONDS at most. A second signal ends the process at once, with the exit status of that signal.
    """
    configure_logging_by(settings)
    allow_descriptors()
    return_large_blocks_when_freed()
    logger.info("work_started", version=__version__, environment=settings.environment, pid=os.getpid())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(settings.model_copy(update={"work": True}), stop))
    finally:
        logger.info("work_stopped")
        write_pending_lines()


async def _work(settings: Settings, stop: Stop) -> None:
    draining, is_to_stop = Draining(), asyncio.Event()
    draining.when_jobs_end(is_to_stop.set)
    with ExitStack() as stack:
        _stop_by_signals(stop, draining, stack)
        async with open_services(settings, Externals(draining=draining), metrics=Metrics()):
            await is_to_stop.wait()
            logger.info("work_stopping", signal=signal.Signals(stop.number or 0).name)


def _stop_by_signals(stop: Stop, draining: Draining, stack: ExitStack) -> None:
    """Has the first signal begin the end, and the second end the process. `stack` takes that back."""
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        if stop.number is not None:
            write_pending_lines()
            os._exit(128 + number)
        stop.number = number
        draining.leave()

    numbers = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGINT}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers[signal.SIGHUP] = signal.SIGTERM
    for number, counts_as in numbers.items():
        before = signal.getsignal(number)
        loop.add_signal_handler(number, partial(end, counts_as))
        stack.callback(signal.signal, number, before)
        stack.callback(loop.remove_signal_handler, number)
