"""The errors that a client can be answered with, as a tree. `web/error_responses.py` makes HTTP responses of them.

    ApiError
      InvalidRequest    400  the HTTP or the JSON cannot be read
        UnsupportedParameter what it asks for cannot be honoured
      Unauthorized      401  no credential, or one that is not valid
      NotFound          404  it does not exist, or belongs to another account
      MethodNotAllowed  405
      RequestTimeout    408  the headers or the body did not arrive in time
      Conflict          409  it contradicts what is stored
      TooLarge          413
      UriTooLong        414
      UnsupportedMedia  415
      Invalid           422  readable, but a field breaks its rule
      RateLimited       429  too many calls in a time
        ConcurrencyLimited   too many calls at a time
      HeadersTooLarge   431
      InternalError     500  a defect of this program
      Unavailable       503  the database or a queue cannot take the request now
        Overloaded           this process works on as many requests as it may
      ResponseTimeout   504  the response did not begin in time

A feature's own error is a two-line subclass in its service. The text of an error holds nothing that the client sent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from app.core.bounds import BODY_BYTES_MAX, format_bytes
from app.core.db import classify_database_error
from app.core.logs import logger

FIELD_ERRORS_MAX = 20

FieldError = Mapping[str, str]
"""`{"pointer": "#/email", "detail": "..."}` for a field of the body, `{"parameter": "limit", "detail": "..."}` for a
parameter of the query.
"""


class ApiError(Exception):
    """A response other than success. A class has the status, the stable code for programs and the default sentence for
    people; an instance may have another sentence.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    code: ClassVar[str]
    detail: ClassVar[str]
    is_worth_repeating: bool = False
    """Whether the same request can end otherwise the next time, soon and without a person's doing."""
    may_have_been_paid: bool = False
    """Whether somebody outside may charge for what was done until it failed: the same request would cost again."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.detail)
        self.sentence = detail or self.detail

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that belong to its class. `headers_of` has all of them."""
        return {}

    @property
    def members(self) -> Mapping[str, Any]:
        """Members of the problem document besides those that every one has."""
        return {}


class InvalidRequest(ApiError):
    status, title, code = 400, "Bad Request", "invalid_request"
    detail = "The request could not be read"


class UnsupportedParameter(InvalidRequest):
    code, detail = "unsupported_parameter", "This parameter cannot be honoured; leave it out"

    def __init__(self, parameter: str | None = None, detail: str | None = None) -> None:
        """`parameter` is its name where that is a known one: any other may be anything that the client sent."""
        super().__init__(detail)
        self.parameter = parameter


class Unauthorized(ApiError):
    status, title, code = 401, "Unauthorized", "unauthorized"
    detail = "Authentication is required"

    def __init__(self, detail: str | None = None, *, credential_sent: bool = True) -> None:
        super().__init__(detail)
        self._credential_sent = credential_sent

    @property
    def headers(self) -> Mapping[str, str]:
        error = ', error="invalid_token"' if self._credential_sent else ""
        return {"WWW-Authenticate": f'Bearer realm="nanobanana"{error}'}


class NotFound(ApiError):
    status, title, code = 404, "Not Found", "not_found"
    detail = "There is nothing here"


class MethodNotAllowed(ApiError):
    status, title, code = 405, "Method Not Allowed", "method_not_allowed"
    detail = "This path does not take that method"

    def __init__(self, allowed: str = "") -> None:
        super().__init__()
        self._allowed = allowed

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Allow": self._allowed}


class RequestTimeout(ApiError):
    status, title, code = 408, "Request Timeout", "request_timeout"
    detail = "The request did not arrive in time"
    is_worth_repeating = True

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Connection": "close"}


class Conflict(ApiError):
    status, title, code = 409, "Conflict", "conflict"
    detail = "That clashes with what is there"


class TooLarge(ApiError):
    status, title, code = 413, "Content Too Large", "body_too_large"
    detail = "The body is larger than 64 KiB"

    def __init__(self, detail: str | None = None, *, bytes_max: int = BODY_BYTES_MAX) -> None:
        super().__init__(detail or f"The body is larger than {format_bytes(bytes_max)}")


class UriTooLong(ApiError):
    status, title, code = 414, "URI Too Long", "uri_too_long"
    detail = "The request line is longer than 8 KiB"


class UnsupportedMedia(ApiError):
    status, title, code = 415, "Unsupported Media Type", "unsupported_media_type"
    detail = "Send the body as Content-Type: application/json"


class Invalid(ApiError):
    status, title, code = 422, "Unprocessable Content", "validation_error"
    detail = "The request is not valid"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__()
        self._errors = list(errors)[:FIELD_ERRORS_MAX]

    @property
    def members(self) -> Mapping[str, Any]:
        return {"errors": self._errors}

    def moved(self, pointers: Mapping[str, str]) -> "Invalid":
        """The same errors about other places: those that `pointers` has for theirs."""
        return Invalid([_moved(each, pointers) for each in self._errors])


def _moved(error: FieldError, pointers: Mapping[str, str]) -> FieldError:
    pointer = pointers.get(error.get("pointer", ""))
    return error if pointer is None else {**error, "pointer": pointer}


class RateLimited(ApiError):
    status, title, code = 429, "Too Many Requests", "rate_limit_exceeded"
    detail = "Rate limit exceeded"
    is_worth_repeating = True

    def __init__(self, *, retry_after_seconds: int) -> None:
        super().__init__()
        self._retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self._retry_after_seconds)}


class ConcurrencyLimited(RateLimited):
    code, detail = "concurrency_limit_exceeded", "Too many generations of this key are running"


class HeadersTooLarge(ApiError):
    status, title, code = 431, "Request Header Fields Too Large", "headers_too_large"
    detail = "There may be 100 headers, of 16 KiB each and 64 KiB together"


class InternalError(ApiError):
    status, title, code = 500, "Internal Server Error", "internal_error"
    detail = "Something went wrong on our side"
    is_worth_repeating = True


class Unavailable(ApiError):
    status, title, code = 503, "Service Unavailable", "unavailable"
    detail = "The service cannot take this request now; try again"
    is_worth_repeating = True

    def __init__(self, detail: str | None = None, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self._retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self._retry_after_seconds)}


class Overloaded(Unavailable):
    code, detail = "overloaded", "The service has too much to do; try again"


class ResponseTimeout(ApiError):
    status, title, code = 504, "Gateway Timeout", "response_timeout"
    detail = "The service has taken too long; whether it has done what was asked cannot be told"
    is_worth_repeating = False  # the first one may still be carried out


def headers_of(error: ApiError) -> dict[str, str]:
    """The headers of the response, in every dialect. `x-should-retry: false` stands on each error that no client should
    repeat by itself: OpenAI's SDKs, which read it, otherwise repeat a 408, 409, 429 and 5xx.
    """
    is_final = error.may_have_been_paid or not error.is_worth_repeating
    return {**error.headers, **({"x-should-retry": "false"} if is_final else {})}


def as_api_error(exception: Exception) -> ApiError:
    """The error that an exception is answered as: itself, if it is an ApiError; else what it says of the database, or
    InternalError for a defect.
    """
    if isinstance(exception, ApiError):
        return exception
    kind = classify_database_error(exception)
    if kind == "data":
        logger.error("validator_missing", exc_info=exception)
        return Invalid([{"pointer": "#", "detail": "Holds a value that cannot be stored"}])
    return Unavailable() if kind == "unavailable" else InternalError()
