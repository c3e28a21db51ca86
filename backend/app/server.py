"""The running server: its socket, its signals, its workers, and what it says when it starts."""

import gc
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from app.core.logs import configure_logging
from app.core.memory import give_back_what_is_large
from app.core.metrics import shared_by_workers
from app.core.settings import ConfigurationError, Settings
from app.core.web.body import BODY_SECONDS_MAX
from app.core.web.protocol import Protocol
from app.main import create_app

_GC_THRESHOLDS = (20_000, 50, 100)  # full collections are rare
_ACCEPTED_PER_TURN = 16
_GRACE_SECONDS_MIN, _GRACE_MARGIN_SECONDS = 30, 5
# Longer than clients and proxies keep an idle connection (60 seconds at the most of the usual ones): whoever lets go of
# it must be the one who sends, or a request meets a connection that has just been closed.
_KEEP_ALIVE_SECONDS = 75


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket, taken before anything else is started: a port in use is told at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another with HOST and PORT."
        ) from None
    with listener:
        yield listener


@dataclass
class Stop:
    """The signal that asked for the end, if one has."""

    number: int | None = None


@contextmanager
def signals_as_exits() -> Iterator[Stop]:
    """SIGTERM and Ctrl-C unwind the stack, so that whatever was started is stopped.

    The server raises the signal that ended it once more after its own clean-up; by default that would end this process
    on the spot, past every `finally`.
    """
    stop = Stop()

    def leave(number: int, _frame: FrameType | None) -> None:
        # What is raised here is lost if it comes in the middle of a callback of the import system, say; so it is also
        # written down, and whoever runs for long looks.
        stop.number = number
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
        if stop.number is not None:
            sys.exit(128 + stop.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(settings: Settings, listener: socket.socket, stop: Stop) -> None:
    """Serves until a signal comes."""
    config = http_config(
        partial(_worker_app, settings),
        factory=True,
        workers=settings.workers,
        loop="uvloop",
        timeout_graceful_shutdown=grace_seconds(settings),
    )
    configure_logging(settings.log_level)
    listener.listen(config.backlog)
    # The event loop accepts one connection a turn of each. In an overload its turns are long, and who asks for health
    # comes on a new connection, behind all others who do.
    sockets = [listener, *(listener.dup() for _ in range(_ACCEPTED_PER_TURN - 1))]
    if settings.workers > 1:
        supervisor = Multiprocess(config, sockets=sockets)  # takes over the signals
        with shared_by_workers():
            if stop.number is None:
                supervisor.run()
    else:
        _Server(config, stop).run(sockets=sockets)


def http_config(app: ASGIApp | Callable[[], FastAPI], **process: Any) -> uvicorn.Config:
    """How the application speaks HTTP, whatever `process` it runs in."""
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # it would believe whatever a client on this machine claims
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        **process,
    )


def grace_seconds(settings: Settings) -> int:
    """How long a server that is told to stop waits for its requests: longer than any of them takes, with a drawing."""
    drawing = 0 if settings.uses_stub else settings.generation_deadline_seconds
    longest = BODY_SECONDS_MAX + drawing + 2 * settings.record_deadline_seconds
    return max(_GRACE_SECONDS_MIN, math.ceil(longest) + _GRACE_MARGIN_SECONDS)


class _Server(uvicorn.Server):
    """A server that looks, once signals have become its own, whether one came before."""

    def __init__(self, config: uvicorn.Config, stop: Stop) -> None:
        super().__init__(config)
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.should_exit = self.should_exit or self._stop.number is not None


def welcome(settings: Settings) -> str:
    url = settings.public_url
    as_json = "-H 'Content-Type: application/json'"
    account = """-d '{"email":"you@example.com","password":"a long password"}'"""
    log_in = f"curl -s {url}/v1/auth/login {as_json} {account} {_pick('access_token')}"
    create_key = f"""curl -s {url}/v1/keys -H "Authorization: Bearer $({log_in})" {as_json} -d '{{"name":"first"}}'"""
    return f"""
  NanoBanana is at {url}   open it in a browser: your first picture is a minute away
  (API reference: {url}/docs, stop: Ctrl-C)

  Or in three lines for another terminal:

curl -s {url}/v1/auth/register {as_json} {account}
KEY=$({create_key} {_pick("key")})
curl -s {url}/v1/generate -H "Authorization: Bearer $KEY" {as_json} -d '{{"prompt":"A cute banana"}}'

  The "url" of the last answer is the picture.
"""


def _worker_app(settings: Settings) -> FastAPI:
    configure_logging(settings.log_level)
    give_back_what_is_large()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    app = create_app(settings)
    _spare_the_collector()
    return app


def _spare_the_collector() -> None:
    """What is there now stays for good: to look through it again would hold requests up for tens of milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _end_with(parent: BaseProcess) -> None:
    """A worker whose parent was killed would keep the port, and nobody would restart it."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _pick(field: str) -> str:
    return f"""| sed 's/.*"{field}":"\\([^"]*\\)".*/\\1/'"""
