"""Paths in which clients have joined a base URL and a path with one slash too many: `//v1/images/generations`."""

import re
from typing import Any
from urllib.parse import unquote

_SLASHES = re.compile(rb"/{2,}")


def merge_slashes(scope: dict[str, Any]) -> None:
    """Gives the request the path in which slashes that follow each other are one, before anything reads it: the path is
    rewritten and never redirected to. A slash that is written as `%2F` stays where it is.
    """
    scope["raw_path"] = _SLASHES.sub(b"/", scope["raw_path"])
    scope["path"] = unquote(scope["raw_path"].decode("ascii"))
