"""The error tree, and the one place where an error becomes an answer.

    ApiError
      InvalidRequest    400  the HTTP or the JSON cannot be read
      Unauthorized      401  no credential, or one that is not good
      NotFound          404  it does not exist, or belongs to somebody else
      MethodNotAllowed  405
      RequestTimeout    408  the body did not come
      Conflict          409  it clashes with what is there
      TooLarge          413
      UnsupportedMedia  415
      Invalid           422  readable, but a field is not as it must be
      RateLimited       429  too often
        ConcurrencyLimited   too much at a time
      InternalError     500  a bug of ours
      Unavailable       503  the database or a queue cannot take it now
        Overloaded           this process has as much to do as it may

A feature's own error is a two-line subclass in its service. What an error says never holds anything the caller sent.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from app.core.db import trouble
from app.core.logs import logger

PROBLEM_MEDIA_TYPE = "application/problem+json"
FIELD_ERRORS_MAX = 20

FieldError = Mapping[str, str]
"""`{"pointer": "#/email", "detail": "..."}` for a field of the body, `{"parameter": "limit", ...}` for a query's."""


class ApiError(Exception):
    """An answer other than success. A class carries the status, the stable code and the default sentence."""

    status: ClassVar[int]
    title: ClassVar[str]
    code: ClassVar[str]
    detail: ClassVar[str]
    is_worth_repeating: ClassVar[bool] = True
    """Whether the same request can end otherwise the next time."""
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
        """What the problem document holds beyond the members that every one has."""
        return {}


ErrorAnswer = Callable[[Request, ApiError], Awaitable[Response]]
"""How paths that speak another language than ours answer an error."""

ErrorAnswers = Sequence[tuple[re.Pattern[str], ErrorAnswer]]
"""Which paths those are."""


class InvalidRequest(ApiError):
    status, title, code = 400, "Bad Request", "invalid_request"
    detail = "The request could not be read"


class Unauthorized(ApiError):
    status, title, code = 401, "Unauthorized", "unauthorized"
    detail = "Authentication is required"

    def __init__(self, *, credential_sent: bool = True) -> None:
        super().__init__()
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
    detail = "The body did not arrive in time"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Connection": "close"}


class Conflict(ApiError):
    status, title, code = 409, "Conflict", "conflict"
    detail = "That clashes with what is there"


class TooLarge(ApiError):
    status, title, code = 413, "Content Too Large", "body_too_large"
    detail = "The body is larger than 64 KiB"


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


class RateLimited(ApiError):
    status, title, code = 429, "Too Many Requests", "rate_limit_exceeded"
    detail = "Rate limit exceeded"

    def __init__(self, *, retry_after_seconds: int) -> None:
        super().__init__()
        self._retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self._retry_after_seconds)}


class ConcurrencyLimited(RateLimited):
    code, detail = "concurrency_limit_exceeded", "Too many generations of this key are running"


class InternalError(ApiError):
    status, title, code = 500, "Internal Server Error", "internal_error"
    detail = "Something went wrong on our side"


class Unavailable(ApiError):
    status, title, code = 503, "Service Unavailable", "unavailable"
    detail = "The service cannot take this request now; try again"

    def __init__(self, detail: str | None = None, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self._retry_after_seconds = retry_after_seconds

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self._retry_after_seconds)}


class Overloaded(Unavailable):
    code, detail = "overloaded", "The service has too much to do; try again"


async def answer(request: Request, exception: Exception) -> Response:
    """The problem document for whatever was raised; what is unknown is a 500 and a log line, never a detail.

    Paths that the application's `error_answers` name are answered as it is said there.
    """
    error = _error_of_request(request, exception)
    if error.status >= InternalError.status:
        paid = error.may_have_been_paid
        logger.error("request_failed", code=error.code, may_have_been_paid=paid, exc_info=exception)
    answers: ErrorAnswers = request.app.state.error_answers
    for paths, answer_in_its_way in answers:
        if paths.fullmatch(request.scope["path"]):
            return await answer_in_its_way(request, error)
    return await answer_as_problem(request, error)


async def answer_as_problem(request: Request, error: ApiError) -> Response:
    """The problem document that says so to this request."""
    return JSONResponse(
        _problem(error, request_id=request.state.request_id),
        status_code=error.status,
        headers=headers_of(error),
        media_type=PROBLEM_MEDIA_TYPE,
    )


def headers_of(error: ApiError) -> dict[str, str]:
    """The headers of its answer, in every dialect. OpenAI's SDKs repeat a request by themselves after a 408, 409, 429
    and 5xx, unless `x-should-retry: false` stands there.
    """
    is_final = error.may_have_been_paid or not error.is_worth_repeating
    return {**error.headers, **({"x-should-retry": "false"} if is_final else {})}


def as_api_error(exception: Exception) -> ApiError:
    """What an exception is answered as: itself, if it is an ApiError; else what it says of the database, or a bug."""
    if isinstance(exception, ApiError):
        return exception
    meaning = trouble(exception)
    if meaning == "data":
        logger.error("validator_missing", exc_info=exception)
        return Invalid([{"pointer": "#", "detail": "Holds a value that cannot be stored"}])
    return Unavailable() if meaning == "unavailable" else InternalError()


def _problem(error: ApiError, *, request_id: str) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.sentence,
        "code": error.code,
        "request_id": request_id,
        **error.members,
    }


def field_errors(errors: Sequence[Mapping[str, Any]], *, known: Sequence[str] = ()) -> list[FieldError]:
    """A validator's findings as wire errors. A name that the caller made up is not repeated."""
    found: dict[tuple[str, ...], FieldError] = {}
    for error in errors:
        place = _place(error["loc"], unknown=error["type"] == "extra_forbidden")
        sentence = _sentence(error, known=known)
        found[*place.values(), sentence] = {**place, "detail": sentence}
    return list(found.values())


def _place(location: Sequence[str | int], *, unknown: bool) -> dict[str, str]:
    if location and location[0] == "query":
        return {"parameter": "*" if unknown else str(location[1])}
    return {"pointer": "/".join(["#", *map(str, location[: -1 if unknown else None])])}


def _sentence(error: Mapping[str, Any], *, known: Sequence[str]) -> str:
    if error["type"] == "extra_forbidden":
        return f"An unknown field; known are: {', '.join(known)}" if known else "An unknown parameter"
    if error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        return "Must be a JSON object"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].upper() + message[1:]


def _error_of_request(request: Request, exception: Exception) -> ApiError:
    if isinstance(exception, RequestValidationError):
        return Invalid(field_errors(exception.errors()))
    if isinstance(exception, HTTPException):
        return _of_the_framework(request, exception)
    return as_api_error(exception)


def _of_the_framework(request: Request, exception: HTTPException) -> ApiError:
    if exception.status_code == NotFound.status:
        return NotFound()
    if exception.status_code == MethodNotAllowed.status:
        return MethodNotAllowed(", ".join(_allowed_methods(request)))
    return InvalidRequest()


def _allowed_methods(request: Request) -> list[str]:
    """Every method that the path takes. The framework names those of the first route that has the path."""
    contexts = iter_route_contexts(request.app.routes)
    routes = [context for context in contexts if context.path_regex.match(request.url.path)]
    return sorted({method for route in routes for method in route.methods or _OF_A_FOLDER})


_OF_A_FOLDER = ("GET", "HEAD")  # a mounted folder of files names no methods
