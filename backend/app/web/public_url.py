"""What URLs in responses begin with."""

import re
from functools import lru_cache

from fastapi import Request

from app.web.state import RequestState

_LOOPBACK = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")


def public_url_of(request: Request) -> str:
    """PUBLIC_URL. Where it is not set: the loopback name that the request was sent to, since some clients open only
    URLs of the very host that they have called; for a request that names any other host, the server's own address.
    """
    state: RequestState = request.scope["state"]
    web = state["web"]
    if web.public_url_is_set:
        return web.public_url
    return _loopback_url(state["headers"].get(b"host", b"")) or web.public_url


@lru_cache(maxsize=64)
def _loopback_url(host: bytes) -> str | None:
    return f"http://{host.decode()}" if _LOOPBACK.fullmatch(host) else None
