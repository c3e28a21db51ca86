"""What URLs in responses begin with."""

import re

from fastapi import Request

from app.web.state import request_state

_LOOPBACK = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")


def public_url_of(request: Request) -> str:
    """PUBLIC_URL. Where it is not set: the loopback name that the request was sent to, since some clients open only
    URLs of the very host that they have called; for a request that names any other host, the server's own address.
    """
    web = request_state(request.scope)["web"]
    if web.public_url_is_set:
        return web.public_url
    host: bytes = next((value for name, value in request.scope["headers"] if name == b"host"), b"")
    return f"http://{host.decode()}" if _LOOPBACK.fullmatch(host) else web.public_url
