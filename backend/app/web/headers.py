"""Headers of requests and responses, as bytes: every call passes here, and Starlette's objects for them cost more."""

from collections.abc import Iterable, Mapping

from fastapi import Request

from app.web.state import RequestState

CREDENTIAL_HEADERS = {
    b"authorization": "Authorization",
    b"api-key": "api-key",
    b"x-goog-api-key": "x-goog-api-key",
}
"""The headers that a credential comes in, each with its name as callers write it. No request has one of them twice."""


def header_values(request: Request, name: bytes) -> list[str]:
    """The values of all headers of the request with this name, which is in lower case."""
    state: RequestState = request.scope["state"]
    found = state["headers"]
    if name not in found:
        return []
    headers = request.scope["headers"]
    if len(found) == len(headers):  # each was sent once
        return [found[name].decode("latin-1")]
    return [value.decode("latin-1") for header, value in headers if header == name]


def add_response_headers(request: Request, headers: Mapping[bytes, bytes]) -> None:
    """Adds headers, named in lower case, to the response to this request, whether a success or an error."""
    state: RequestState = request.scope["state"]
    state["response_headers"].update(headers)


def with_common_headers(headers: Iterable[tuple[bytes, bytes]], state: RequestState) -> list[tuple[bytes, bytes]]:
    """The headers of a response, with those that every response has, and those that were added to this one."""
    all_headers = [*headers, (b"x-request-id", state["request_id"].encode()), (b"x-content-type-options", b"nosniff")]
    if b"cache-control" not in dict(all_headers):
        all_headers.append((b"cache-control", b"no-store"))
    all_headers += state["response_headers"].items()
    return all_headers
