"""What a provider sent: whether it drew anything, what it is, and what the log may say of it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

from app.core.logs import logger
from app.providers import Picture, ProviderFailed, Size
from app.providers.pixels import NotAPicture, OtherShape, fit
from app.providers.purchase import Again

OK, TOO_MANY, SERVER_ERROR, UNAVAILABLE = 200, 429, 500, 503
TIMED_OUT = 408
_CANCELLED = 499
_CLIENT_ERROR = 400

_MEDIA_TYPES = {
    *("application/json", "application/problem+json", "application/xml", "application/octet-stream"),
    *("image/png", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/svg+xml"),
    *("text/html", "text/plain", "text/xml", "text/event-stream"),
}
_FIRST_BYTES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
    b"RIFF": "webp",
    b"\xef\xbb\xbf": "byte order mark",
    b"<": "html",
    b"{": "json",
    b"[": "json",
}
_LOOKED_AT = 64


@dataclass(frozen=True)
class Answer:
    """What came. Of anything but a 200, at most the first 64 KiB."""

    status: int
    headers: httpx2.Headers
    content: bytearray

    @property
    def says_nothing_was_drawn(self) -> bool:
        """Whether the provider refused the call, or is not to be asked now: nothing to pay.

        Any other status can come of a call that was drawn for: a gateway's 408 and 499 are those of a client that did
        not wait, and its 500, 502, 504 and 52x say only that it has no answer.
        """
        refused = _CLIENT_ERROR <= self.status < SERVER_ERROR and self.status not in {TIMED_OUT, _CANCELLED}
        return refused or self.status == UNAVAILABLE

    @property
    def description(self) -> Mapping[str, object]:
        """Status, media type, size in bytes and kind, for the log: words that are ours, whatever came."""
        said = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        media_type = said if said in _MEDIA_TYPES else "other" if said else "none"
        kind, size = kind_of(self.content), len(self.content)
        return {"status": self.status, "media_type": media_type, "bytes": size, "kind": kind}


class Unreadable(Exception):
    """What came is not what was asked for. It holds none of it, but says of an image what kind it is and how large."""

    def __init__(self, image: bytes | None = None, *, is_other_shape: bool = False) -> None:
        super().__init__()
        self.is_other_shape = is_other_shape
        self.description = {} if image is None else {"image_kind": kind_of(image), "image_bytes": len(image)}


def kind_of(content: bytes | bytearray) -> str:
    """png, jpeg, gif, webp, html, json, byte order mark, empty or other, by the first bytes alone."""
    start = bytes(content[:_LOOKED_AT]).lstrip()
    found = [kind for first, kind in _FIRST_BYTES.items() if start.startswith(first)]
    return found[0] if found else "other" if content else "empty"


def read_picture(content: bytes, size: Size) -> Picture:
    """The picture in these bytes, of exactly `size`: see `fit`. Raises Unreadable."""
    try:
        return fit(content, size)
    except NotAPicture as fault:
        is_other_shape = isinstance(fault, OtherShape)
    raise Unreadable(content, is_other_shape=is_other_shape)


@contextmanager
def failing_if_unreadable(provider: str, answer: Answer) -> Iterator[None]:
    """Makes Unreadable the failure of a try, and logs what came."""
    try:
        yield
    except Unreadable as found:
        event = "provider_drew_another_shape" if found.is_other_shape else "provider_answer_unreadable"
        logger.error(event, provider=provider, **answer.description, **found.description)
        # The same picture has the same shape the next time. Bytes that broke on their way may arrive whole.
        raise (ProviderFailed() if found.is_other_shape else Again(ProviderFailed())) from None


def is_json(content: bytearray) -> bool:
    """Whether it is one JSON object, as an interface answers, and no page of somebody in between."""
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False
