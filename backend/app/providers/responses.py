"""A provider's HTTP response: whether the call was paid, which error it means, the image in it, and what is logged."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

import httpx2
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WrapValidator

from app.core.images import MEDIA_TYPES
from app.core.logs import logger
from app.providers import (
    Image,
    NoImageReturned,
    ProviderFailed,
    ProviderUnavailable,
    ProviderUnusable,
    RouteFailure,
    Size,
    encodings,
)
from app.providers.decode import InvalidImage, OtherShape, fit
from app.providers.retries import Retry

OK, BAD_REQUEST, NOT_FOUND, TOO_MANY, SERVER_ERROR, UNAVAILABLE = 200, 400, 404, 429, 500, 503
KEY_REFUSED = {401, 403}
OPERATOR_STATUSES = {401, 402, 403, 404}
"""Key, billing, permission, and a model that no longer exists."""

REQUEST_ID_HEADERS = ("x-request-id", "apim-request-id", "x-ms-request-id")
"""OpenAI's, and those of Azure's gateway and services."""
ERROR_BYTES_MAX = 64 * 1024
"""Of a response that is no success."""

_SUCCESSES = range(200, 300)
_TIMED_OUT, _CANCELLED = 408, 499
_BUSY_SECONDS, _UNUSABLE_SECONDS = 5, 60
_LOGGED_MEDIA_TYPES = {
    *MEDIA_TYPES.values(),
    *("application/json", "application/problem+json", "application/xml", "application/octet-stream"),
    *("image/gif", "image/avif", "image/svg+xml"),
    *("text/html", "text/plain", "text/xml", "text/event-stream"),
}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIRST_BYTES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
    b"RIFF": "webp",
    _BYTE_ORDER_MARK: "byte order mark",
    b"<": "html",
    b"{": "json",
    b"[": "json",
}
_IMAGES = {"png", "jpeg", "webp"}
_UNCOMPRESSED = {*_IMAGES, "json", "byte order mark"}
_EXAMINED_BYTES = 64
_ERROR_STATUS = re.compile(r"[45]\d\d", re.ASCII)


class Message(BaseModel):
    """A JSON object of a provider's API. Its validation errors do not quote the provider."""

    model_config = ConfigDict(hide_input_in_errors=True)


AnyMessage = TypeVar("AnyMessage", bound=Message)
Value = TypeVar("Value")


def _or_none(value: object, read: Callable[[object], Value]) -> Value | None:
    try:
        return read(value)
    except ValidationError:
        return None


def _as_object(value: object) -> object:
    return value if isinstance(value, dict) else {} if value else None


Lenient = Annotated[Value | None, WrapValidator(_or_none)]
"""A value of another type counts as missing, so that it does not spoil what stands beside it."""
AnyError = Annotated[Value | None, BeforeValidator(_as_object)]
"""An error that is no object, such as a sentence, says only that there is one."""


@dataclass(frozen=True)
class Response:
    """The whole body of a success; of any other status at most the first 64 KiB."""

    status: int
    headers: httpx2.Headers
    content: bytes | bytearray

    @property
    def succeeded(self) -> bool:
        """Whether the body may hold what was requested."""
        return self.status in _SUCCESSES

    @property
    def encodings(self) -> Sequence[str]:
        """The content encodings of the body, in the order in which they were applied."""
        named = [name.strip().lower() for name in self.headers.get("content-encoding", "").split(",")]
        return [name for name in named if name not in {"", "identity"}]

    def decompressed(self, *, bytes_max: int) -> "Response":
        """The same without content encodings, which some servers name and do not apply. Raises UnreadableResponse where
        they cannot be decoded within `bytes_max`.
        """
        if not self.encodings:
            return self
        plain = encodings.decompressed(self.content, self.encodings, bytes_max=bytes_max)
        if plain is not None:
            return replace(self, content=plain)
        if kind_of(self.content) in _UNCOMPRESSED:
            return self
        raise UnreadableResponse

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
        described = {"status": self.status, "media_type": media_type, "bytes": len(self.content)}
        if self.encodings:
            known = set(self.encodings) <= set(encodings.KNOWN)
            return {**described, "kind": "compressed", "encoding": self.encodings[-1] if known else "other"}
        return {**described, "kind": kind_of(self.content)}


class UnreadableResponse(Exception):
    """A success without what was requested. It quotes nothing, and describes an image by its kind and size in bytes."""

    def __init__(self, image: bytes | None = None, *, is_other_shape: bool = False) -> None:
        super().__init__()
        self.is_other_shape = is_other_shape
        self.description = {} if image is None else {"image_kind": kind_of(image), "image_bytes": len(image)}


class NoImage(Exception):
    """A success that can be read, and has no image in it and no error."""


class StatedError(Exception):
    """A success whose body states an error, which has the meaning of this status."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


def stated_status(code: object, *names: object, statuses: Mapping[str, int]) -> int:
    """The status that an error in a body has by its `code`, where that is one, or by the first known of its names; 500
    for any other, after which a call may have been paid.
    """
    if _ERROR_STATUS.fullmatch(str(code)):
        return int(str(code))
    return next((statuses[str(name)] for name in (code, *names) if str(name) in statuses), SERVER_ERROR)


def is_image(content: bytes | bytearray) -> bool:
    """Whether it begins as an image does."""
    return kind_of(content) in _IMAGES


def kind_of(content: bytes | bytearray) -> str:
    """png, jpeg, gif, webp, html, json, byte order mark, empty or other, by the first bytes alone."""
    start = bytes(content[:_EXAMINED_BYTES]).lstrip()
    found = [kind for first, kind in _FIRST_BYTES.items() if start.startswith(first)]
    return found[0] if found else "other" if content else "empty"


def parse(message: type[AnyMessage], content: bytes | bytearray) -> AnyMessage | None:
    """The message in a body, also after a byte order mark or in a list of its own; None if the body is not one."""
    text = content.removeprefix(_BYTE_ORDER_MARK)
    if text[:_EXAMINED_BYTES].lstrip().startswith(b"["):
        text = text.strip()[1:-1]  # without its brackets, a list of one is that one, and a longer list is no JSON
    try:
        return message.model_validate_json(text)
    except ValidationError:
        return None


def read_message(message: type[AnyMessage], content: bytes | bytearray) -> AnyMessage:
    """The message in a body. Raises UnreadableResponse."""
    parsed = parse(message, content)
    if parsed is None:
        raise UnreadableResponse
    return parsed


def read_base64(text: str, size: Size) -> Image:
    """The image in base64, of exactly `size`: see `from_base64` and `fit`. Raises UnreadableResponse."""
    content = encodings.from_base64(text)
    if content is None:
        raise UnreadableResponse
    return read_image(content, size)


def read_image(content: bytes, size: Size) -> Image:
    """The image in these bytes, of exactly `size`: see `fit`. Raises UnreadableResponse."""
    try:
        return fit(content, size)
    except InvalidImage as fault:
        is_other_shape = isinstance(fault, OtherShape)
    raise UnreadableResponse(content, is_other_shape=is_other_shape)


@contextmanager
def failing_if_unreadable(provider: str, response: Response) -> Iterator[None]:
    """Turns UnreadableResponse and NoImage into the failure of an attempt, and logs the response's description."""
    try:
        yield
    except NoImage:
        if response.status == OK:
            raise Retry(NoImageReturned(), may_pay_twice=True) from None
        raise status_error(provider, response, "unreadable") from None  # a 202 may be drawing it still
    except UnreadableResponse as found:
        event = "provider_drew_another_shape" if found.is_other_shape else "provider_answer_unreadable"
        logger.error(event, provider=provider, **response.description, **found.description)
        # The same image has the same shape the next time. Bytes that were damaged in transit may arrive whole.
        error = ProviderFailed(failure="unreadable")
        raise (error if found.is_other_shape else Retry(error)) from None


def is_json(content: bytes | bytearray) -> bool:
    """Whether it is one JSON object, as an API sends, and not a page of a gateway."""
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def operator_error(*, status: int, reason: str) -> ProviderUnusable:
    """The error for a failure that only the operator can mend; the first one of a route is logged by its `Usability`.
    `reason` is never the provider's words.
    """
    error = ProviderUnusable(retry_after_seconds=_UNUSABLE_SECONDS)
    error.provider_status, error.reason = status, reason
    return error


def status_error(provider: str, response: Response, failure: RouteFailure) -> Exception:
    """The error for a status without a meaning of its own, logged: a Retry where the provider may be in trouble."""
    logger.error("provider_answer_unexpected", provider=provider, **response.description)
    is_trouble = response.status >= SERVER_ERROR or response.status == _TIMED_OUT
    error = ProviderFailed(failure=failure)
    return Retry(error) if is_trouble else error


def busy_error(after_seconds: float | None) -> Retry:
    """The error for a 429 or a 503: nothing was drawn, and another attempt may follow after the provider's delay."""
    seconds = max(1, math.ceil(_BUSY_SECONDS if after_seconds is None else after_seconds))
    return Retry(ProviderUnavailable(retry_after_seconds=seconds), after_seconds=after_seconds)
