"""Turns an exception into a response: a problem document, or what the dialect of the path has instead."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException

from app.core.errors import (
    ApiError,
    FieldError,
    InternalError,
    Invalid,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    as_api_error,
    headers_of,
)
from app.core.logs import logger
from app.web.state import request_state

PROBLEM_MEDIA_TYPE = "application/problem+json"

METHODS_OF_FILES = ("GET", "HEAD")  # a mounted folder of files names no methods

ErrorFormat = Callable[[Request, ApiError], Awaitable[Response]]
"""Makes the response for an error: status, headers and body."""

ErrorFormats = Sequence[tuple[re.Pattern[str], ErrorFormat]]
"""The formats of paths that do not answer with problem documents. A pattern must match the whole path; the first that
does counts.
"""


async def error_response(request: Request, exception: Exception) -> Response:
    """The response to an exception: in the format that `WebSettings.error_formats` has for the path, else a problem
    document. An unexpected exception becomes a 500. Errors of 500 and above are logged; the response never holds
    anything of the exception's text.
    """
    error = _error_of_request(request, exception)
    request_state(request.scope)["code"] = error.code
    if error.status >= InternalError.status:
        paid = error.may_have_been_paid
        logger.error("request_failed", code=error.code, may_have_been_paid=paid, exc_info=exception)
    for paths, make_response in request_state(request.scope)["web"].error_formats:
        if paths.fullmatch(request.scope["path"]):
            return await make_response(request, error)
    return await problem_response(request, error)


async def problem_response(
    request: Request, error: ApiError, *, more: Mapping[str, Any] = MappingProxyType({})
) -> Response:
    """The error as a problem document (RFC 9457), with these members more."""
    problem = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.sentence,
        "code": error.code,
        "request_id": request_state(request.scope)["request_id"],
        **error.members,
        **more,
    }
    return JSONResponse(problem, status_code=error.status, headers=headers_of(error), media_type=PROBLEM_MEDIA_TYPE)


def field_errors(errors: Sequence[Mapping[str, Any]], *, known: Sequence[str] = ()) -> list[FieldError]:
    """A validator's errors as those of a problem document. The error about an unknown parameter, or an unknown field of
    the body, lists the names in `known`; none repeats the name that the client sent.
    """
    found: dict[tuple[str, ...], FieldError] = {}
    for error in errors:
        location = _location(error["loc"], unknown=error["type"] == "extra_forbidden")
        sentence = _sentence(error, known=known)
        found[*location.values(), sentence] = {**location, "detail": sentence}
    return list(found.values())


def _location(path: Sequence[str | int], *, unknown: bool) -> dict[str, str]:
    if path and path[0] == "query":
        return {"parameter": "*" if unknown else str(path[1])}
    return {"pointer": "/".join(["#", *map(str, path[: -1 if unknown else None])])}


def _sentence(error: Mapping[str, Any], *, known: Sequence[str]) -> str:
    if error["type"] == "extra_forbidden":
        of_query = error["loc"][0] == "query"
        kind = "parameter" if of_query else "field"
        is_nested = len(error["loc"]) > 1 and not of_query  # the object has other names than the body
        return f"An unknown {kind}" + (f"; known are: {', '.join(known)}" if known and not is_nested else "")
    if error["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        return "Must be a JSON object"
    if error["type"] in {"too_long", "too_short"}:
        return _length_sentence(error["ctx"], unit="character" if isinstance(error["input"], str) else "item")
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].upper() + message[1:]


def _length_sentence(bounds: Mapping[str, Any], *, unit: str) -> str:
    """The validator's own counts `items` of a text too, where the text has a check before the bound."""
    bound, count = ("most", bounds["max_length"]) if "max_length" in bounds else ("least", bounds["min_length"])
    return f"Should have at {bound} {count} {unit}{'' if count == 1 else 's'}"


def _error_of_request(request: Request, exception: Exception) -> ApiError:
    if isinstance(exception, RequestValidationError):
        return Invalid(field_errors(exception.errors(), known=_query_parameters(request)))
    if isinstance(exception, HTTPException):
        return _of_framework(request, exception)
    return as_api_error(exception)


def _query_parameters(request: Request) -> Sequence[str]:
    """The names of the route's parameters, as the OpenAPI document has them; of a page, which is not in it, none."""
    path = request.app.openapi()["paths"].get(getattr(request.scope.get("route"), "path_format", None), {})
    parameters = path.get(request.method.lower(), {}).get("parameters", ())
    return [each["name"] for each in parameters if each["in"] == "query"]


def _of_framework(request: Request, exception: HTTPException) -> ApiError:
    if exception.status_code == NotFound.status:
        not_offered = request_state(request.scope)["web"].not_offered
        return NotFound(next((each for paths, each in not_offered if paths.fullmatch(request.scope["path"])), None))
    if exception.status_code == MethodNotAllowed.status:
        return MethodNotAllowed(", ".join(_allowed_methods(request)))
    return InvalidRequest()


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all routes that have the path. The framework names those of the first such route only."""
    contexts = iter_route_contexts(request.app.routes)
    routes = [context for context in contexts if context.path_regex.match(request.url.path)]
    return sorted({method for route in routes for method in route.methods or METHODS_OF_FILES})
