"""The header `Idempotency-Key`."""

import re

from fastapi import Request

from app.core.errors import InvalidRequest
from app.web.headers import header_values

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes the call safe to repeat for a day: 1 to 255 visible ASCII characters, bare or quoted.",
    "schema": {"type": "string", "pattern": '^("[!#-~]{1,255}"|[!#-~]{1,255})$'},
}
"""The header as OpenAPI describes it."""

_IDEMPOTENCY_KEY = re.compile(r'"(?P<quoted>[!#-~]{1,255})"|(?P<bare>[!#-~]{1,255})', re.ASCII)


def read_idempotency_key(request: Request) -> str | None:
    """The request's `Idempotency-Key`, without its quotes, if it has one. Raises InvalidRequest for a malformed one."""
    sent = header_values(request, b"idempotency-key")
    if not sent:
        return None
    match = _IDEMPOTENCY_KEY.fullmatch(sent[0])
    if match is None or len(sent) > 1:
        raise InvalidRequest("Idempotency-Key must be one of 1 to 255 visible ASCII characters, bare or quoted")
    return match["quoted"] or match["bare"]
