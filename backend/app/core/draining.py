"""How a process that is to stop lets go of its clients, so that none of their requests fails."""

import ctypes
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

IDLE_SECONDS = 5
"""How long a draining process keeps idle connections: a request that is on its way on one of them is answered."""

_SO_ATTACH_FILTER = 26
_DROP_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)  # a program of one instruction in classic BPF: keep 0 bytes


@dataclass
class Draining:
    """What a process that is to stop does meanwhile. The server sets it, the application reads it."""

    has_begun: bool = False
    """Every response ends its connection, and idle connections are kept for IDLE_SECONDS."""
    is_leaving: bool = False
    """/ready is a 503: the whole server is to stop, and proxies shall send new requests elsewhere."""

    def leave(self) -> None:
        """Begins to drain because the whole server is to stop."""
        self.has_begun = self.is_leaving = True

    def begin(self) -> None:
        """Begins to drain because another process has taken over."""
        self.has_begun = True


def hold_off(listener: socket.socket) -> None:
    """Has the system drop attempts to connect to the listening socket, in all processes that share it.

    The system answers an attempt by itself, and resets connections that nobody has accepted when the socket is closed:
    a request that was sent on one fails. An attempt that is dropped is repeated after a second, and by then refused:
    the client knows that nothing was sent. Does nothing where the system is not Linux.
    """
    program = ctypes.create_string_buffer(_DROP_ALL)
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))
