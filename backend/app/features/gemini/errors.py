"""Errors as Google writes them: https://google.aip.dev/193"""

from collections.abc import Mapping
from typing import Any

from app.catalogue.model import ModelNotFound
from app.core.errors import ApiError, headers_of
from app.web.openapi import in_json, problems

STATUSES: Mapping[int, tuple[int, str]] = {
    400: (400, "INVALID_ARGUMENT"),
    401: (401, "UNAUTHENTICATED"),
    402: (402, "FAILED_PRECONDITION"),
    403: (403, "PERMISSION_DENIED"),
    404: (404, "NOT_FOUND"),
    405: (405, "NOT_FOUND"),
    408: (408, "DEADLINE_EXCEEDED"),
    409: (409, "ABORTED"),
    410: (410, "NOT_FOUND"),
    413: (413, "INVALID_ARGUMENT"),
    414: (414, "INVALID_ARGUMENT"),
    415: (415, "INVALID_ARGUMENT"),
    416: (416, "OUT_OF_RANGE"),
    422: (400, "INVALID_ARGUMENT"),
    429: (429, "RESOURCE_EXHAUSTED"),
    431: (431, "INVALID_ARGUMENT"),
    500: (500, "INTERNAL"),
    502: (502, "UNAVAILABLE"),
    503: (503, "UNAVAILABLE"),
    504: (504, "DEADLINE_EXCEEDED"),
}
"""For the status of each error: the one that Google has for it, and Google's word."""

_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "status", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The status of the response."},
                "message": {"type": "string"},
                "status": {"type": "string", "enum": sorted({word for _, word in STATUSES.values()})},
                "details": {
                    "type": "array",
                    "description": "`ErrorInfo` with the code as its `reason`, and of `budget_exceeded` with `cap` and "
                    "`ends_at` as its `metadata`; where to retry helps, `RetryInfo`.",
                    "items": {"type": "object", "required": ["@type"]},
                },
            },
        }
    },
}
_TYPES = "type.googleapis.com/google.rpc"


def error_body(error: ApiError) -> dict[str, Any]:
    """An error as Google writes it: `{"error": {"code", "message", "status", "details"}}`. The first of the details has
    the error's code here, and as its metadata the members that are texts; where there is a time to wait, a second one
    has that.
    """
    status, word = STATUSES[error.status]
    info: dict[str, Any] = {"@type": f"{_TYPES}.ErrorInfo", "reason": error.code, "domain": "nanobanana"}
    if metadata := {name: value for name, value in error.members.items() if isinstance(value, str)}:
        info["metadata"] = metadata
    details = [info]
    if seconds := headers_of(error).get("Retry-After"):
        details.append({"@type": f"{_TYPES}.RetryInfo", "retryDelay": f"{seconds}s"})
    return {"error": {"code": status, "message": _message(error), "status": word, "details": details}}


def _message(error: ApiError) -> str:
    sentence = error.sentence_of_path if isinstance(error, ModelNotFound) else error.sentence
    return ". ".join([sentence, *map(_place_and_detail, error.members.get("errors", ()))])


def _place_and_detail(each: Mapping[str, str]) -> str:
    place = each.get("parameter", "").removeprefix("*") or each.get("pointer", "").removeprefix("#").removeprefix("/")
    return f"{place}: {each['detail']}" if place else each["detail"]


def google_problems(*errors: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can answer these errors, and of those that every route can answer."""
    found: dict[int | str, dict[str, Any]] = {}
    for status, problem in problems(*errors).items():
        googles, _ = STATUSES[int(status)]
        described = [found[googles]["description"]] if googles in found else []
        joined = "; ".join([*described, problem["description"]])
        found[googles] = in_json(googles, {**problem, "description": joined}, _SCHEMA)
    return found
