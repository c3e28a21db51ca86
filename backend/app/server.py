"""The running server: its socket, its signals and its workers."""

import gc
import math
import multiprocessing
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from app import __version__
from app.assembly import Externals
from app.catalogue.configured import catalogue_of
from app.core.draining import Draining
from app.core.logs import logger, write_pending_lines
from app.core.memory import return_large_blocks_when_freed
from app.core.metrics import Metrics
from app.core.metrics.shared import registry_of_all_workers, shared_by_workers, shown_on_port
from app.core.process_setup import allow_descriptors, configure_logging_by
from app.core.running_servers import ServerRecord
from app.core.settings import ConfigurationError, Settings
from app.core.stopping import Stop, stop_this_process, stop_when_terminal_closes
from app.generations.lifetime import lifetime_of
from app.main import create_app
from app.reloads import Reading, Reloads
from app.rolling import obey_supervisor
from app.supervision import Server, Supervisor
from app.web.protocol import HttpProtocol

_GC_THRESHOLDS = (20_000, 200, 25)
"""While thousands of calls wait for a provider, a collection of the newest objects takes 3 ms and one of all that came
since the start 300: so the second kind is rare. References alone free what calls leave, but for little.
"""
_ACCEPTED_PER_TURN = 16
_UNSENT_BYTES = 128 * 1024
"""What the system takes of a response before it can send it. By itself it takes megabytes, and holds them for a client
that does not read.
"""
BACKLOG = 2048
"""Connections that may wait to be accepted."""

_GRACE_SECONDS_MIN, _GRACE_MARGIN_SECONDS = 30, 5
# Longer than the usual clients and proxies keep an idle connection (at most 60 seconds), so that they close it and not
# the server: a request that is sent while the server closes its connection would fail.
_KEEP_ALIVE_SECONDS = 75
# A worker that says nothing for so long is replaced. On a busy machine one that still starts says nothing for a while.
_WORKER_SECONDS = 20


@contextmanager
def listening_socket(settings: Settings) -> Iterator[socket.socket]:
    """The bound socket, made before anything else is started: a port in use ends the start at once.

    Raises ConfigurationError where the address cannot be had.
    """
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)  # connections inherit it
            listener.bind(address)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "That is no name of a host"
            raise ConfigurationError(
                f"Cannot listen on {settings.host}:{settings.port}: {reason}. Choose another with HOST and PORT."
            ) from None
        yield listener


Reread = Callable[[], tuple[Settings, Sequence[str]]]
"""The settings as they are now, which only differ from the running ones where a reload can change them, and sentences
for the operator. Raises ConfigurationError.
"""


def run(settings: Settings, listener: socket.socket, stop: Stop, *, reread: Reread) -> None:
    """Serves HTTP on the listening socket, with `settings.workers` processes, until a signal comes. A reload has other
    workers take their place, with what `reread` returns.

    Raises ConfigurationError where a worker cannot start.
    """

    def read() -> Reading:
        changed, warnings = reread()
        return Reading(_config(changed, Draining()), warnings)

    configure_logging_by(settings)
    allow_descriptors()
    # In one turn the event loop accepts one connection on each listening socket. During an overload its turns are long,
    # and a health check comes on a new connection, which waits behind all others.
    sockets = [listener, *(listener.dup() for _ in range(_ACCEPTED_PER_TURN - 1))]
    record = ServerRecord(settings.data_dir, f"{settings.host}:{settings.port}")
    reloads = Reloads(read, record)
    _log_start(settings)
    try:
        with record.published():
            _serve(settings, sockets, stop, reloads)
    finally:
        logger.info("server_stopped")
        write_pending_lines()


def _serve(settings: Settings, sockets: Sequence[socket.socket], stop: Stop, reloads: Reloads) -> None:
    draining, metrics = Draining(), Metrics() if settings.workers == 1 else None
    config = _config(settings, draining, metrics)
    named: dict[str, Any] = {"reloads": reloads, "drain_seconds": settings.drain_seconds}
    with shared_by_workers() as of_workers:
        if metrics is None:
            _run_workers(settings, Supervisor(config, sockets, stop, metrics=of_workers, **named), stop)
            return
        server = Server(config, sockets, stop, draining=draining, **named)
        with shown_on_port(settings, metrics.families.registry):
            server.serve_until_stopped()
        if server.successor is not None:
            config, named["first"] = server.config_of_successor, server.successor
            _run_workers(settings, Supervisor(config, sockets, stop, metrics=of_workers, **named), stop)


def _run_workers(settings: Settings, supervisor: Supervisor, stop: Stop) -> None:
    """`supervisor` handles signals from its construction on."""
    with shown_on_port(settings, registry_of_all_workers()):
        if stop.number is None:
            supervisor.run()
            if stop.number is None:
                raise ConfigurationError("The workers cannot start; the log has the reason.")


def _config(settings: Settings, draining: Draining, metrics: Metrics | None = None) -> uvicorn.Config:
    """The configuration of a process that serves with these settings; of this process with these metrics. The models
    are read here: a worker that takes the place of one that died has those of the others, whatever the file holds by
    then.

    Raises ConfigurationError.
    """
    externals = Externals(
        catalogue=catalogue_of(settings), draining=draining, job_drain_seconds=grace_seconds(settings)
    )
    return http_config(
        partial(_worker_app, settings, externals, metrics),
        factory=True,
        workers=settings.workers,
        loop="uvloop",
        timeout_graceful_shutdown=grace_seconds(settings),
        timeout_worker_healthcheck=_WORKER_SECONDS,
    )


def _log_start(settings: Settings) -> None:
    logger.info(
        "server_started",
        version=__version__,
        environment=settings.environment,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        provider="models_file" if settings.models_file else settings.image_provider,
        store=settings.image_store,
    )


def http_config(app: ASGIApp | Callable[[], FastAPI], **process: Any) -> uvicorn.Config:
    """The configuration of uvicorn for this application; `process` holds the options that depend on how it is run."""
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # it would trust X-Forwarded-For of every client on this machine
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        **process,
    )


def grace_seconds(settings: Settings) -> int:
    """How long a stopping server waits for its requests at most: longer than any takes."""
    return max(_GRACE_SECONDS_MIN, math.ceil(lifetime_of(settings).longest_seconds) + _GRACE_MARGIN_SECONDS)


def _worker_app(settings: Settings, externals: Externals, metrics: Metrics | None) -> FastAPI:
    return_large_blocks_when_freed()
    parent = multiprocessing.parent_process()
    if parent is not None:
        configure_logging_by(settings)
        stop_when_terminal_closes()
        obey_supervisor(externals.draining)
        threading.Thread(target=_stop_after, args=(parent,), daemon=True).start()
    _end_jobs_at_signals(externals.draining)
    app = create_app(settings, externals, metrics=metrics)
    _freeze_start_objects()
    return app


def _end_jobs_at_signals(draining: Draining) -> None:
    """Has the signals that end this process end its work on asynchronous generations at once, while uvicorn waits for
    requests. To be called while uvicorn's handlers are installed, as they are when it makes the application.
    """

    def end(number: int, frame: FrameType | None, *, also: Callable[[int, FrameType | None], object]) -> None:
        draining.end_jobs()
        also(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        if callable(handler := signal.getsignal(number)):
            signal.signal(number, partial(end, also=handler))


def _freeze_start_objects() -> None:
    """Leaves all objects of the start out of later collections: they live as long as the process, and looking through
    them would hold requests up for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _stop_after(parent: BaseProcess) -> None:
    """Stops this worker when its parent has ended: else it would keep the port, and nothing would restart it."""
    parent.join()
    stop_this_process()
