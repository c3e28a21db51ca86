"""The OpenAPI document, with the request bodies and the errors that FastAPI does not know of."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from app.core.errors import (
    ApiError,
    HeadersTooLarge,
    InternalError,
    Invalid,
    InvalidRequest,
    Overloaded,
    RequestTimeout,
    ResponseTimeout,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
    UriTooLong,
)
from app.core.schemas import Body
from app.web.error_responses import PROBLEM_MEDIA_TYPE

Bodies = Mapping[str, type[Body]]
"""The schemas of a request's body by media type: what a dependency that reads it has as its attribute `bodies`."""

_REF = "#/components/schemas/{model}"
_OPENAI_ERROR = {
    "type": "object",
    "required": ["message", "type", "param", "code"],
    "properties": {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"]},
        "code": {"type": "string"},
    },
}
_PROBLEM = {
    "title": "Problem",
    "description": "An error, as RFC 9457 describes it.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What went wrong, for a human."},
        "code": {"type": "string", "description": "What went wrong, for a program. Stable."},
        "request_id": {"type": "string", "description": "Names this request in the operator's log."},
        "error": {
            **_OPENAI_ERROR,
            "description": "The same as OpenAI writes it, for clients that read nothing else (below /v1 only).",
        },
        "cap": {"type": "string", "enum": ["account", "key"], "description": "Whose cap it is (`budget_exceeded`)."},
        "ends_at": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "When the cap's period ends; null for a key's whole life (`budget_exceeded`).",
        },
        "errors": {
            "type": "array",
            "maxItems": 20,
            "description": "The places that are not as they must be (422 only).",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON Pointer into the body."},
                    "parameter": {"type": "string", "description": "A parameter of the query."},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}


def problems(*errors: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can answer these errors, and of those that every route can answer."""
    by_status: defaultdict[int, list[type[ApiError]]] = defaultdict(list)
    for error in (*errors, *_OF_EVERY_ROUTE):
        if error not in by_status[error.status]:
            by_status[error.status].append(error)
    return {status: _problem(of_status) for status, of_status in sorted(by_status.items())}


def openai_problems(*errors: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """The same of a route that answers errors in OpenAI's format."""
    schema = {"type": "object", "required": ["error"], "properties": {"error": _OPENAI_ERROR}}
    return {status: in_json(status, each, schema) for status, each in problems(*errors).items()}


def in_json(status: int | str, problem: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The problem as JSON of this schema; where the server may have ended the connection before it knew the path, as
    the problem document too.
    """
    ended = problem["content"] if status in {each.status for each in _ENDING_CONNECTIONS} else {}
    return {**problem, "content": {"application/json": {"schema": schema}, **ended}}


_OF_EVERY_ROUTE: Sequence[type[ApiError]] = (
    InvalidRequest,
    RequestTimeout,
    TooLarge,
    UriTooLong,
    HeadersTooLarge,
    InternalError,
    Unavailable,
    Overloaded,
    ResponseTimeout,
)

_ENDING_CONNECTIONS = (InvalidRequest, RequestTimeout, UriTooLong, HeadersTooLarge)

BODY_PROBLEMS = (UnsupportedMedia, Invalid)
"""The errors of every route that takes a body."""


def operation_id(route: APIRoute) -> str:
    """The operation id of a route: the name of its function."""
    return route.name


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of all the app's routes."""
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute) and context.include_in_schema:
            for bodies in _bodies(context.dependant):
                for body in bodies.values():
                    definition = body.model_json_schema(ref_template=_REF)
                    schemas.update(definition.pop("$defs", {}))
                    schemas[body.__name__] = definition
                for method in context.methods or ():
                    schema["paths"][context.path_format][method.lower()]["requestBody"] = _request_body(bodies)
    _remove_framework_422(schema)
    _put_most_used_credential_last(schema)
    return schema


def _put_most_used_credential_last(schema: dict[str, Any]) -> None:
    """Swagger UI's window for credentials sets the cursor into the last one."""
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    uses = Counter(name for operation in operations for each in operation.get("security", ()) for name in each)
    schemes = schema["components"].get("securitySchemes", {})
    schema["components"]["securitySchemes"] = {name: schemes[name] for name in sorted(schemes, key=uses.__getitem__)}


def _remove_framework_422(schema: dict[str, Any]) -> None:
    """FastAPI documents a 422 of its own shape for every route with a parameter. This program never sends one."""
    for path in schema["paths"].values():
        for operation in path.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
                del operation["responses"]["422"]
    for model in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(model, None)


def _bodies(dependant: Dependant) -> Iterator[Bodies]:
    bodies: Bodies = getattr(dependant.call, "bodies", {})
    if bodies:
        yield bodies
    for dependency in dependant.dependencies:
        yield from _bodies(dependency)


def _request_body(bodies: Bodies) -> dict[str, Any]:
    schemas = {media_type: {"$ref": _REF.format(model=body.__name__)} for media_type, body in bodies.items()}
    return {"required": True, "content": {media_type: {"schema": schema} for media_type, schema in schemas.items()}}


def _problem(errors: list[type[ApiError]]) -> dict[str, Any]:
    return {
        "description": "; ".join(f"`{error.code}`: {error.detail}" for error in errors),
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }
