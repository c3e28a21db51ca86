"""The header `Prefer` (RFC 7240): a caller who does not wait for the image, or only so long."""

import re
from functools import lru_cache
from typing import Any

from fastapi import Request

from app.core.errors import InvalidRequest
from app.features.terms import Preference
from app.web.headers import header_values

WAIT_SECONDS_MAX = 60

PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": (
        "`respond-async`: the answer is a 202 as soon as the request is on disk, and the image is made later. "
        f"`wait=20`: the answer waits so many seconds for it, 1 to {WAIT_SECONDS_MAX}. Others have no effect."
    ),
    "schema": {"type": "string", "examples": ["respond-async"]},
}
"""The header as OpenAPI describes it."""

_SECONDS = re.compile(r'"?0*([1-9][0-9]?)"?', re.ASCII)


def read_preference(request: Request) -> Preference | None:
    """The request's preference; None for one that has none that is known here. Raises InvalidRequest for a `wait` that
    is out of bounds.
    """
    sent = header_values(request, b"prefer")
    return _read(",".join(sent)) if sent else None


@lru_cache(maxsize=100)  # callers send few
def _read(sent: str) -> Preference | None:
    found: dict[str, str] = {}
    for each in sent.split(","):
        name, _, value = each.partition(";")[0].partition("=")
        found.setdefault(name.strip(" \t").lower(), value.strip(" \t"))  # of two, the first counts
    if "wait" not in found:
        return Preference(None) if "respond-async" in found else None
    match = _SECONDS.fullmatch(found["wait"])
    if match is None or int(match[1]) > WAIT_SECONDS_MAX:
        raise InvalidRequest(f"Prefer: wait must be a number of seconds from 1 to {WAIT_SECONDS_MAX}")
    return Preference(int(match[1]))
