"""Connecting to a host by whichever of its addresses answers first (Happy Eyeballs, RFC 8305)."""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv6Address, ip_address
from itertools import zip_longest
from typing import Any

from app.core.pinning import look_up

_HEAD_START_SECONDS = 0.25
_THREADS = 4

_Address = tuple[int, tuple[Any, ...]]


class Resolver:
    """Looks up the names of one provider, in threads of its own. A name whose servers do not answer keeps a thread for
    as long as the system waits for them; so it holds up no other provider, and no connection to the database.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="look-up-provider")

    async def addresses(self, host: str, port: int) -> list[_Address]:
        """The families in turn, as RFC 8305 says. An IP address needs no thread. Raises OSError."""
        try:
            literal = ip_address(host)
        except ValueError:
            look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        else:
            return [(socket.AF_INET6 if isinstance(literal, IPv6Address) else socket.AF_INET, (host, port))]
        addresses: list[_Address] = [(family, address) for family, _, _, _, address in found]
        first = [each for each in addresses if each[0] == addresses[0][0]]
        others = [each for each in addresses if each[0] != addresses[0][0]]
        return [each for pair in zip_longest(first, others) for each in pair if each is not None]

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        """The IP addresses in the order in which the system would try them; none where the name has none."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up, host, port)

    def close(self) -> None:
        """Waits for no look-up that runs."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def connected_socket(host: str, port: int, resolver: Resolver) -> socket.socket:
    """A connected TCP socket, which does not block.

    Each address has a quarter of a second before the next one is tried beside it. Where all fail, raises the OSError of
    the first that did.
    """
    waiting, failures = await resolver.addresses(host, port), list[OSError]()
    if len(waiting) == 1:
        return await _connected(*waiting[0])
    running = set[asyncio.Task[socket.socket]]()
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_connected(*waiting.pop(0))))
            seconds = _HEAD_START_SECONDS if waiting else None
            done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                running.discard(attempt)
                try:
                    return attempt.result()
                except OSError as failure:
                    failures.append(failure)
    finally:
        for attempt in running:
            attempt.add_done_callback(_close)
            attempt.cancel()
    raise failures[0]


async def _connected(family: int, address: tuple[Any, ...]) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.settimeout(0)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connecting, address)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """The second of two that connect in the same turn of the event loop."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
