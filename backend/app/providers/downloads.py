"""Requests for images at addresses that a provider chose: allowed to the provider itself and to public hosts alone."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpx2

from app.providers.remote import UNCOMPRESSED
from app.providers.responses import Response

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns a host's IP addresses as text."""

_UNICAST, _PORT_MAX = IPv6Network("2000::/3"), 65_535
_REDIRECTS = {301, 302, 303, 307, 308}


class Redirect(Exception):
    """The image is at another URL of the same origin."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url


async def resolve(host: str, port: int) -> Sequence[str]:
    """The IP addresses from the system's resolver; none where the name has no address."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for _family, _type, _protocol, _name, address in found]


async def download_request(text: str, *, endpoint: httpx2.URL, resolve: Resolve) -> httpx2.Request | None:
    """A request for the URL `text`, which may be relative to the endpoint, without credentials; None where the URL is
    refused.

    The endpoint chooses the URL, so it could name a host of our own network. Allowed are the endpoint itself, and hosts
    on the Internet by https. The connection goes to the IP address that was checked: the name may have another one a
    moment later.
    """
    url = _parsed(text, endpoint)
    # A connection of its own: one that was made for another name at that address proved that other name.
    headers = {**UNCOMPRESSED, "Connection": "close"}
    if url is not None and _origin(url) == _origin(endpoint):
        return httpx2.Request("GET", url, headers=headers)
    addresses = await resolve(url.host, url.port or 443) if url is not None and url.scheme == "https" else []
    if url is None or not addresses or not all(map(_is_public, addresses)):
        return None
    name, pinned = url.raw_host.decode("ascii"), url.copy_with(host=random.SystemRandom().choice(addresses))
    headers["Host"] = url.netloc.decode("ascii")
    return httpx2.Request("GET", pinned, headers=headers, extensions={"sni_hostname": name})


def redirect_of(response: Response, requested: httpx2.URL) -> Redirect | None:
    """Where the response to a request for this URL redirects to; None unless that is of the same origin. The target is
    to be checked like any URL that the provider chooses.
    """
    if response.status not in _REDIRECTS:
        return None
    target = _parsed(response.headers.get("location", ""), requested)
    return Redirect(str(target)) if target is not None and _origin(target) == _origin(requested) else None


def _parsed(text: str, base: httpx2.URL) -> httpx2.URL | None:
    try:
        url = base.join(text.strip())
    except (httpx2.InvalidURL, ValueError):
        return None
    is_usable = url.host and not url.userinfo and (url.port is None or 0 < url.port <= _PORT_MAX)
    return url if is_usable else None


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_public(text: str) -> bool:
    """Whether an IP address is on the Internet, and does not embed another address that is not."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(str(address.ipv4_mapped))
        if address not in _UNICAST or address.sixtofour is not None:
            return False
    return address.is_global and not address.is_multicast
