"""Requests for images at addresses that a provider chose: allowed to the provider itself and to public hosts alone."""

import random

import httpx2

from app.core.addresses import is_public
from app.core.pinning import IMAGE_HEADERS, REDIRECTS, Resolve, pinned_request
from app.providers.responses import Response

_PORT_MAX = 65_535


class Redirect(Exception):
    """The image is at another URL of the same origin."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url


async def download_request(text: str, *, endpoint: httpx2.URL, resolve: Resolve) -> httpx2.Request | None:
    """A request for the URL `text`, which may be relative to the endpoint, without credentials; None where the URL is
    refused.

    The endpoint chooses the URL, so it could name a host of our own network. Allowed are the endpoint itself, and hosts
    on the Internet by https. The connection goes to the IP address that was checked: the name may have another one a
    moment later.
    """
    url = _parsed(text, endpoint)
    if url is not None and _origin(url) == _origin(endpoint):
        return httpx2.Request("GET", url, headers=IMAGE_HEADERS)
    addresses = await resolve(url.host, url.port or 443) if url is not None and url.scheme == "https" else []
    if url is None or not addresses or not all(map(is_public, addresses)):
        return None
    return pinned_request(url, random.SystemRandom().choice(addresses))


def redirect_of(response: Response, requested: httpx2.URL) -> Redirect | None:
    """Where the response to a request for this URL redirects to; None unless that is of the same origin. The target is
    to be checked like any URL that the provider chooses.
    """
    if response.status not in REDIRECTS:
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
