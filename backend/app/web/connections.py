"""All connections of one process, and how long each may wait for its client."""

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from struct import pack
from typing import NamedTuple
from typing import Protocol as Interface

from app.core.bounds import EdgeBounds
from app.core.draining import Draining
from app.core.metrics import Metrics

_TCP_INFO_BYTES = 128
_BYTES_ACKED = slice(120, 128)  # tcpi_bytes_acked in Linux' struct tcp_info


class WaitFor(Enum):
    """What a connection waits for its client to do. The values are labels of the metric."""

    HEAD = "head"
    """Send the rest of a request's head."""
    BODY = "body"
    """Send the rest of a body."""
    READER = "reader"
    """Read a response."""
    HANGUP = "hangup"
    """Read why the server ends the connection, and hang up."""
    NEXT_REQUEST = "idle"
    RESPONSE = "response"
    """Nothing: the response of the server has still to begin."""
    NOTHING = "nothing"
    """Nothing: the server is at work."""


class Wait(NamedTuple):
    """What a connection waits for now."""

    kind: WaitFor
    of: object = None
    """Differs from one wait of a kind to the next."""
    amount: int = 0
    """Bytes of a body that have arrived, or of responses that the client has acknowledged."""


class Connection(Interface):
    """A connection as the sweep sees it."""

    def wait(self) -> Wait: ...

    def end_wait(self, kind: WaitFor) -> None:
        """Ends the connection: this has taken too long, or its client must make room."""


@dataclass(slots=True)
class _Watch:
    """A wait, since when it has been seen, and when its amount was last seen to change."""

    wait: Wait
    since: float
    moved: float


class Connections:
    """The connections of one process.

    One timer looks at all of them every `sweep_seconds`, and ends those that have waited for too long, and the oldest
    idle ones beyond `idle_connections_max`. Requests set no timer, and call nothing here unless their client reads more
    slowly than they are answered: a sweep asks each connection what it waits for, and compares that with what it saw
    before.
    """

    def __init__(
        self, bounds: EdgeBounds, metrics: Metrics, *, per_address_max: int, draining: Draining | None = None
    ) -> None:
        self.draining = draining or Draining()
        self._bounds = bounds
        self._metrics = metrics.requests
        self._per_address_max = per_address_max
        self._watches: dict[Connection, _Watch] = {}
        self._metrics.connections_open.watch(lambda: len(self._watches))
        self._addresses: Counter[str] = Counter()
        self._unread: Counter[Connection] = Counter()
        self._unread_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection, *, address: str | None) -> bool:
        """Watches the connection. Returns False if its address has as many as it may. None is not counted."""
        if address is not None:
            self._addresses[address] += 1
        if self._timer is None:
            self._set_timer()
        now = asyncio.get_running_loop().time()
        self._watches[connection] = _Watch(Wait(WaitFor.NOTHING), now, now)
        is_within = address is None or self._addresses[address] <= self._per_address_max
        if not is_within:
            self._count("address")
        return is_within

    def remove(self, connection: Connection, *, address: str | None) -> None:
        """Forgets a connection that was added, when it is lost."""
        del self._watches[connection]
        self._forget_unread(connection)
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    @contextmanager
    def unread(self, connection: Connection, count: int) -> Iterator[None]:
        """While the block waits for the client to read, so many bytes of a response are kept for it. Where all clients
        together have too many, those that have been silent for longest are cut off at once, perhaps this one.
        """
        self._unread[connection] += count
        self._unread_bytes += count
        self._watches[connection].moved = asyncio.get_running_loop().time()  # it has taken what came before this
        while self._unread_bytes > self._bounds.unread_bytes_max:
            longest_silent = min(self._unread, key=self._silent_since)
            self._forget_unread(longest_silent)
            self._end(longest_silent, WaitFor.READER)
        try:
            yield
        finally:
            if connection in self._unread:
                self._unread[connection] -= count
                self._unread_bytes -= count
                if not self._unread[connection]:
                    del self._unread[connection]

    def close(self) -> None:
        """Ends the sweeps."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._bounds.sweep_seconds, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        if not self._watches:
            return
        self._set_timer()
        now = asyncio.get_running_loop().time()
        for connection, watch in list(self._watches.items()):
            _look(connection, watch, now)
            silent, waited = now - watch.moved, now - watch.since
            if is_late(self._bounds, watch.wait, waited=waited, silent=silent):
                self._end(connection, watch.wait.kind)
        self._end_idle()

    def _end_idle(self) -> None:
        if len(self._watches) > self._bounds.idle_connections_max:
            idle = [each for each, watch in self._watches.items() if watch.wait.kind is WaitFor.NEXT_REQUEST]
            for connection in sorted(idle, key=self._silent_since)[: -self._bounds.idle_connections_max]:
                self._end(connection, WaitFor.NEXT_REQUEST)

    def _forget_unread(self, connection: Connection) -> None:
        self._unread_bytes -= self._unread.pop(connection, 0)

    def _silent_since(self, connection: Connection) -> float:
        return self._watches[connection].moved

    def _end(self, connection: Connection, kind: WaitFor) -> None:
        connection.end_wait(kind)
        if kind is not WaitFor.HANGUP:
            self._count(kind.value)

    def _count(self, bound: str) -> None:
        self._metrics.connections_ended.add(bound)


def is_late(bounds: EdgeBounds, wait: Wait, *, waited: float, silent: float) -> bool:
    """Whether a client has kept its connection waiting for too long, or the server its client: `waited` seconds in all,
    `silent` ones without progress.
    """
    match wait.kind:
        case WaitFor.HEAD:
            return waited > bounds.head_seconds
        case WaitFor.BODY:
            is_slow = wait.amount < waited * bounds.body_bytes_per_second
            return silent > bounds.body_seconds or (waited > bounds.body_seconds and is_slow)
        case WaitFor.READER:
            return silent > bounds.reader_seconds
        case WaitFor.RESPONSE:
            return bounds.response_seconds is not None and waited > bounds.response_seconds
        case WaitFor.HANGUP:
            return waited > bounds.linger_seconds
    return False


def _look(connection: Connection, watch: _Watch, now: float) -> None:
    before, wait = watch.wait, connection.wait()
    if wait.kind is not before.kind or wait.of is not before.of:
        watch.since = watch.moved = now
    elif wait.amount != before.amount:
        watch.moved = now
    watch.wait = wait


def reset(transport: asyncio.Transport) -> None:
    """Ends the connection at once. The system drops what it has not sent, which a client that does not read would let
    it keep.
    """
    with suppress(OSError):
        on, seconds = 1, 0
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", on, seconds))
    transport.abort()


def acknowledged_bytes(transport: asyncio.Transport) -> int:
    """A number that changes whenever the client has taken more of what was sent to it.

    The operating system's own count, where it has one: what this process keeps in its buffer changes more seldom than
    a slow client reads, since the system takes megabytes of it at once.
    """
    connection = transport.get_extra_info("socket")
    if sys.platform == "linux" and connection.family in {socket.AF_INET, socket.AF_INET6}:
        with suppress(OSError):
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            return int.from_bytes(info[_BYTES_ACKED], sys.byteorder)
    return -transport.get_write_buffer_size()
