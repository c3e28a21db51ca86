"""How a process that is to stop lets go of its clients, so that none of their requests fails."""

import ctypes
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

IDLE_SECONDS = 5
"""How long a draining process keeps idle connections: a request that is on its way on one of them is answered."""

_SO_ATTACH_FILTER = 26
_TCP_INFO_BYTES, _QUEUED = 28, slice(24, 28)  # of a listening socket, tcpi_unacked in Linux' struct tcp_info
# In classic BPF: of what arrives, a SYN without an ACK is dropped, and everything else passes.
_DROP_ATTEMPTS = (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x54, 0, 0, 0x12),  # of these, SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFF_FFFF),
)


@dataclass
class Draining:
    """What a process that is to stop does meanwhile. The server sets it, the application reads it."""

    has_begun: bool = False
    """Every response ends its connection, and idle connections are kept for IDLE_SECONDS."""
    is_leaving: bool = False
    """/ready is a 503: the whole server is to stop, and proxies shall send new requests elsewhere."""

    has_ended_jobs: bool = False
    """No asynchronous generation is taken any more."""
    _when_jobs_end: list[Callable[[], object]] = field(default_factory=list)

    def leave(self) -> None:
        """Begins to drain because the whole server is to stop."""
        self.has_begun = self.is_leaving = True
        self.end_jobs()

    def begin(self) -> None:
        """Begins to drain because another process has taken over."""
        self.has_begun = True
        self.end_jobs()

    def end_jobs(self) -> None:
        """Ends the work on asynchronous generations, because the process is to stop. A signal may call it at any
        moment, and more than once.
        """
        self.has_ended_jobs = True
        for each in self._when_jobs_end:
            each()

    def when_jobs_end(self, listener: Callable[[], object]) -> None:
        """Has `listener` called by `end_jobs`, within a handler of signals; at once if that was called before."""
        self._when_jobs_end.append(listener)
        if self.has_ended_jobs:
            listener()


def hold_off(listener: socket.socket) -> None:
    """Has the system drop attempts to connect to the listening socket, in all processes that share it.

    The system answers an attempt by itself, and resets connections that nobody has accepted when the socket is closed:
    a request that was sent on one fails. An attempt that is dropped is repeated after a second, and by then refused:
    the client knows that nothing was sent. Does nothing where the system is not Linux.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _DROP_ATTEMPTS))
    with suppress(OSError):
        option = struct.pack("@HP", len(_DROP_ATTEMPTS), ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def count_queued(listener: socket.socket) -> int:
    """How many have connected to the listening socket and wait to be accepted; 0 where the system is not Linux."""
    if sys.platform != "linux":
        return 0
    return int.from_bytes(
        listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)[_QUEUED], sys.byteorder
    )
