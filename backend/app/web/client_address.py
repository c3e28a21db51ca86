"""Who is calling, as far as limits are concerned: the address behind the proxies that we trust, and its networks."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from fastapi import Request

from app.core.settings import Network, Settings

Address = IPv4Address | IPv6Address

_HOPS_MAX = 50  # no chain of proxies is that long: what is further left was written to keep us busy


class Origin(NamedTuple):
    """Where a request came from. Both are "unknown" where there is no address, as on a Unix socket."""

    host: str
    """One caller's share of the address space: an IPv4 address, or the /64 that one IPv6 customer gets."""
    network: str
    """What one organisation easily has more of: the IPv4 /24, or the /48 that holds 65,536 of those /64."""


def origin_of(request: Request) -> Origin:
    """Where the request came from.

    `X-Forwarded-For` is read from the right and only as long as each hop is a trusted proxy: whatever a client writes
    stands further left and is never reached. Without trusted proxies the header means nothing.
    """
    settings: Settings = request.app.state.settings
    peer = _parse(request.client.host) if request.client else None
    if peer is None:
        return Origin("unknown", "unknown")
    forwarded = request.headers.getlist("x-forwarded-for")
    return places_of(behind_proxies(peer, forwarded=forwarded, trusted=settings.trusted_proxies))


def behind_proxies(peer: Address, *, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address:
    """The last address, seen from our side, that is not a trusted proxy's."""
    address = peer
    hops = [hop.strip() for header in forwarded for hop in header.rsplit(",", _HOPS_MAX)][-_HOPS_MAX:]
    while hops and _is_within(trusted, address):
        further = _parse(hops.pop())
        if further is None:
            break
        address = further
    return address


def places_of(address: Address) -> Origin:
    """The caller's share of the address space that the address is in, and the network around it."""
    if isinstance(address, IPv4Address):
        return Origin(str(address), str(ip_network((address, 24), strict=False)))
    return Origin(*(str(ip_network((address, bits), strict=False)) for bits in (64, 48)))


def is_in(networks: Sequence[Network], host: str) -> bool:
    """Whether the address is in one of the networks."""
    address = _parse(host) if networks else None
    return address is not None and _is_within(networks, address)


def _is_within(networks: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
