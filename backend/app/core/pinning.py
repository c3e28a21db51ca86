"""Requests whose connection goes to an IP address that was checked, and whose certificate is still the name's."""

import socket
from collections.abc import Awaitable, Callable, Sequence

import httpx2

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns a host's IP addresses as text; none where it has no address."""

REDIRECTS = {301, 302, 303, 307, 308}
REDIRECTS_MAX = 3

IMAGE_HEADERS = {
    "Accept-Encoding": "identity",  # images do not get smaller
    # A connection of its own: one that was made for another name at that address proved that other name.
    "Connection": "close",
}


def look_up(host: str, port: int) -> Sequence[str]:
    """The IP addresses from the system's resolver, in the order in which it would try them. For a thread."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for _family, _type, _protocol, _name, address in found]


def pinned_request(url: httpx2.URL, address: str) -> httpx2.Request:
    """A GET of the URL at this IP address, without credentials. SNI, Host and certificate are those of its name."""
    headers = {**IMAGE_HEADERS, "Host": url.netloc.decode("ascii")}
    name = url.raw_host.decode("ascii")
    return httpx2.Request("GET", url.copy_with(host=address), headers=headers, extensions={"sni_hostname": name})
