"""How URLs are written in settings, so that every client can read them."""

import re
from urllib.parse import SplitResult, urlsplit


def split_url(text: str) -> SplitResult:
    """The parts of a URL. Raises ValueError, with the end of a sentence, for one that some client cannot read."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("is no URL: its host or its port cannot be read")
    if re.search(r"[\s<>\"\\^`{|}]", text) or "%" in (parts.hostname or ""):
        raise ValueError("is no URL: it has a character in it that no URL may have")
    return parts
