"""Who is calling, as far as limits are concerned: the address behind the proxies that we trust, and its network."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from fastapi import Request

from app.core.settings import Network

Address = IPv4Address | IPv6Address


def client_network(request: Request, *, trusted: Sequence[Network]) -> str:
    """The IPv4 address or the IPv6 /64 that a request came from.

    `X-Forwarded-For` is read from the right and only as long as each hop is a trusted proxy: whatever a client writes
    stands further left and is never reached. Without trusted proxies the header means nothing.
    """
    peer = _parse(request.client.host) if request.client else None
    if peer is None:
        return "unknown"
    return network_of(behind_proxies(peer, forwarded=request.headers.getlist("x-forwarded-for"), trusted=trusted))


def behind_proxies(peer: Address, *, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address:
    """The last address, seen from our side, that is not a trusted proxy's."""
    address = peer
    hops = [hop.strip() for header in forwarded for hop in header.split(",")]
    while hops and any(address in network for network in trusted):
        further = _parse(hops.pop())
        if further is None:
            break
        address = further
    return address


def network_of(address: Address) -> str:
    """One caller's share of the address space: an IPv4 address, or the /64 that one IPv6 customer gets."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
