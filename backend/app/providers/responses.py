"""A provider's HTTP response: whether the call was paid, which error it means, the image in it, and what is logged."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import httpx2
import pybase64
from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from app.core.images import MEDIA_TYPES
from app.core.logs import logger
from app.providers import Image, ProviderFailed, ProviderUnavailable, Size
from app.providers.decode import InvalidImage, OtherShape, fit
from app.providers.retries import Retry

OK, BAD_REQUEST, NOT_FOUND, TOO_MANY, SERVER_ERROR, UNAVAILABLE = 200, 400, 404, 429, 500, 503
KEY_REFUSED = {401, 403}
OPERATOR_STATUSES = {401, 402, 403, 404}
"""Key, billing, permission, and a model that no longer exists."""

_TIMED_OUT, _CANCELLED = 408, 499
_BUSY_SECONDS, _UNUSABLE_SECONDS = 5, 60
_LOGGED_MEDIA_TYPES = {
    *MEDIA_TYPES.values(),
    *("application/json", "application/problem+json", "application/xml", "application/octet-stream"),
    *("image/gif", "image/avif", "image/svg+xml"),
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
_EXAMINED_BYTES = 64


class Message(BaseModel):
    """A JSON object of a provider's API. Its validation errors do not quote the provider."""

    model_config = ConfigDict(val_json_bytes="base64", hide_input_in_errors=True)


def _decoded(text: Any, decode: ValidatorFunctionWrapHandler) -> bytes:
    with suppress(ValueError, TypeError):
        return pybase64.b64decode(text, validate=True)
    decoded: bytes = decode(text)  # which takes the URL-safe alphabet too, and no padding
    return decoded


Base64 = Annotated[bytes, WrapValidator(_decoded)]
"""Bytes that a message holds in base64."""

AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True)
class Response:
    """The whole body of a 200; of any other status at most the first 64 KiB."""

    status: int
    headers: httpx2.Headers
    content: bytearray

    @property
    def means_unpaid(self) -> bool:
        """Whether the provider refused the call, or is too busy for it, so there is nothing to pay.

        Any other status can follow a call that was drawn: a gateway sends 408 and 499 when a client did not wait, and
        500, 502, 504 and 52x when it has no response to pass on.
        """
        refused = BAD_REQUEST <= self.status < SERVER_ERROR and self.status not in {_TIMED_OUT, _CANCELLED}
        return refused or self.status == UNAVAILABLE

    @property
    def description(self) -> Mapping[str, object]:
        """Status, media type, size in bytes and kind, for the log: from fixed lists, never the provider's words."""
        sent = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        media_type = sent if sent in _LOGGED_MEDIA_TYPES else "other" if sent else "none"
        kind, size = kind_of(self.content), len(self.content)
        return {"status": self.status, "media_type": media_type, "bytes": size, "kind": kind}


class UnreadableResponse(Exception):
    """A 200 without what was requested. It quotes nothing, and describes an image by its kind and size in bytes."""

    def __init__(self, image: bytes | None = None, *, is_other_shape: bool = False) -> None:
        super().__init__()
        self.is_other_shape = is_other_shape
        self.description = {} if image is None else {"image_kind": kind_of(image), "image_bytes": len(image)}


def kind_of(content: bytes | bytearray) -> str:
    """png, jpeg, gif, webp, html, json, byte order mark, empty or other, by the first bytes alone."""
    start = bytes(content[:_EXAMINED_BYTES]).lstrip()
    found = [kind for first, kind in _FIRST_BYTES.items() if start.startswith(first)]
    return found[0] if found else "other" if content else "empty"


def parse(message: type[AnyMessage], content: bytearray) -> AnyMessage | None:
    """The message in a body; None if the body is not one."""
    try:
        return message.model_validate_json(content)
    except ValidationError:
        return None


def read_message(message: type[AnyMessage], content: bytearray) -> AnyMessage:
    """The message in a body. Raises UnreadableResponse."""
    parsed = parse(message, content)
    if parsed is None:
        raise UnreadableResponse
    return parsed


def read_image(content: bytes, size: Size) -> Image:
    """The image in these bytes, of exactly `size`: see `fit`. Raises UnreadableResponse."""
    try:
        return fit(content, size)
    except InvalidImage as fault:
        is_other_shape = isinstance(fault, OtherShape)
    raise UnreadableResponse(content, is_other_shape=is_other_shape)


@contextmanager
def failing_if_unreadable(provider: str, response: Response) -> Iterator[None]:
    """Turns UnreadableResponse into the failure of an attempt, and logs the response's description."""
    try:
        yield
    except UnreadableResponse as found:
        event = "provider_drew_another_shape" if found.is_other_shape else "provider_answer_unreadable"
        logger.error(event, provider=provider, **response.description, **found.description)
        # The same image has the same shape the next time. Bytes that were damaged in transit may arrive whole.
        raise (ProviderFailed() if found.is_other_shape else Retry(ProviderFailed())) from None


def is_json(content: bytearray) -> bool:
    """Whether it is one JSON object, as an API sends, and not a page of a gateway."""
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def operator_error(provider: str, *, status: int, reason: str) -> ProviderUnavailable:
    """The error for a failure that only the operator can mend. Logs `reason`, which is never the provider's words."""
    logger.error("provider_unusable", provider=provider, status=status, reason=reason)
    return ProviderUnavailable(retry_after_seconds=_UNUSABLE_SECONDS)


def status_error(provider: str, response: Response) -> Exception:
    """The error for a status without a meaning of its own, logged: a Retry where the provider may be in trouble."""
    logger.error("provider_answer_unexpected", provider=provider, **response.description)
    is_trouble = response.status >= SERVER_ERROR or response.status == _TIMED_OUT
    return Retry(ProviderFailed()) if is_trouble else ProviderFailed()


def busy_error(after_seconds: float | None) -> Retry:
    """The error for a 429 or a 503: nothing was drawn, and another attempt may follow after the provider's delay."""
    seconds = max(1, math.ceil(_BUSY_SECONDS if after_seconds is None else after_seconds))
    return Retry(ProviderUnavailable(retry_after_seconds=seconds), after_seconds=after_seconds)
