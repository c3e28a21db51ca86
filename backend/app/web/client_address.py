"""The address of the client of a request, behind the proxies that the operator trusts, and its networks, for limits."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from fastapi import Request
from starlette.types import Scope

from app.core.server_settings import Network
from app.web.state import RequestState, request_state

Address = IPv4Address | IPv6Address

# An address as proxies write it with the client's port: 198.51.100.1:4444, [2001:db8::1]:443; or without, in brackets.
_WITH_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)(?:%[^]]*)?\]|(?P<ipv4>[0-9.]+))(?::[0-9]{1,5})?")
_HOPS_MAX = 50  # real chains of proxies are shorter: a client could write any number of further hops, to cost us time


class Origin(NamedTuple):
    """Where a request came from. Both are "unknown" for a peer without an address, as on a Unix socket."""

    host: str
    """The addresses that one customer has: an IPv4 address, or an IPv6 /64."""
    network: str
    """The addresses that one organisation easily has: an IPv4 /24, or an IPv6 /48, which holds 65,536 /64s."""


def origin_of(request: Request) -> Origin:
    """Where the request came from.

    `X-Forwarded-For` is read from the right, for as long as each hop is a trusted proxy. What a client writes into it
    stands further left and is never reached. Without trusted proxies the header is ignored.
    """
    peer = _parse(request.client.host) if request.client else None
    if peer is None:
        return Origin("unknown", "unknown")
    forwarded = request.headers.getlist("x-forwarded-for")
    return networks_of(
        client_address(peer, forwarded=forwarded, trusted=request_state(request.scope)["web"].trusted_proxies)
    )


def client_address(peer: Address, *, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address:
    """The first address, from the peer backwards through the `X-Forwarded-For` headers, that no trusted proxy has."""
    address = peer
    hops = [hop.strip() for header in forwarded for hop in header.rsplit(",", _HOPS_MAX)][-_HOPS_MAX:]
    while hops and _is_within(trusted, address):
        further = _parse_hop(hops.pop())
        if further is None:
            break
        address = further
    return address


def logged_address(scope: Scope, state: RequestState) -> str | None:
    """The client's address for the request's line in the log; None where LOG_CLIENT_ADDRESS is off, or where there is
    none, as on a Unix socket.
    """
    peer, web = scope.get("client"), state["web"]
    if peer is None or not web.logs_addresses:
        return None
    host: str = peer[0]
    if not web.trusted_proxies and ":" not in host:
        return host  # as the system has written it
    forwarded = tuple(value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for")
    return _address_text(host, forwarded, tuple(web.trusted_proxies))


@lru_cache(maxsize=1000)
def _address_text(host: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str | None:
    peer = _parse(host)
    return None if peer is None else str(client_address(peer, forwarded=forwarded, trusted=trusted))


def networks_of(address: Address) -> Origin:
    """The addresses that the client's customer and organisation have, by the usual sizes of networks."""
    if isinstance(address, IPv4Address):
        return Origin(str(address), str(ip_network((address, 24), strict=False)))
    return Origin(*(str(ip_network((address, bits), strict=False)) for bits in (64, 48)))


def customer_of(host: str) -> str:
    """As `Origin.host`, of the address of a peer."""
    address = _parse(host) if ":" in host else None  # an IPv4 address is a customer's as it stands
    return host if address is None else networks_of(address).host


def is_in(networks: Sequence[Network], host: str) -> bool:
    """Whether the address is in one of the networks. Text that is no address is in none."""
    address = _parse(host) if networks else None
    return address is not None and _is_within(networks, address)


def _is_within(networks: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in networks)


def _parse_hop(text: str) -> Address | None:
    """The address of an entry of `X-Forwarded-For`, without quotes, brackets, port and zone."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    match = _WITH_PORT.fullmatch(text)
    return _parse(match["ipv6"] or match["ipv4"] if match else text)


def _parse(text: str) -> Address | None:
    """The address without its zone; an IPv4 address where it is mapped into IPv6."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
