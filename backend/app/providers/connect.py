"""Connecting to a host by whichever of its addresses answers first (Happy Eyeballs, RFC 8305)."""

import asyncio
import socket
from ipaddress import IPv6Address, ip_address
from itertools import zip_longest
from typing import Any

_HEAD_START_SECONDS = 0.25

_Address = tuple[int, tuple[Any, ...]]


async def connected_socket(host: str, port: int) -> socket.socket:
    """A connected TCP socket, which does not block.

    Each address has a quarter of a second before the next one is tried beside it. Where all fail, raises the OSError of
    the first that did.
    """
    waiting, failures = await _addresses(host, port), list[OSError]()
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


async def _addresses(host: str, port: int) -> list[_Address]:
    """The families in turn, as RFC 8305 says. An IP address needs no resolver, which is a thread's work."""
    try:
        literal = ip_address(host)
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    else:
        return [(socket.AF_INET6 if isinstance(literal, IPv6Address) else socket.AF_INET, (host, port))]
    addresses: list[_Address] = [(family, address) for family, _, _, _, address in found]
    first = [each for each in addresses if each[0] == addresses[0][0]]
    others = [each for each in addresses if each[0] != addresses[0][0]]
    return [each for pair in zip_longest(first, others) for each in pair if each is not None]
