"""Paths that clients have joined to a base URL with one slash too many: `//v1/images/generations`."""

import re
from urllib.parse import unquote

from uvicorn._types import HTTPScope

_SLASHES = re.compile(rb"/{2,}")


def merge_slashes(scope: HTTPScope) -> None:
    """Makes slashes that follow each other in the request's path one, before anything reads it. The path is rewritten,
    and never redirected to. What is written as `%2F` stays.
    """
    raw_path = _SLASHES.sub(b"/", scope["raw_path"])
    scope["raw_path"], scope["path"] = raw_path, unquote(raw_path.decode("ascii"))
