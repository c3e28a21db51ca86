"""Every key of the application's lifespan state and of `scope["state"]`, with its type.

Uvicorn copies the lifespan state into the state of each request.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from app.core.blobs import BlobSpace
from app.core.bounds import EdgeBounds
from app.core.server_settings import Network
from app.core.tracing import Tracing

if TYPE_CHECKING:  # these modules read this one
    from app.web.connections import Connections
    from app.web.cors import CorsPolicy
    from app.web.error_responses import ErrorFormats
    from app.web.overload import OverloadGuard
    from app.web.prepared_refusals import PreparedRefusals


class BodyBounds(NamedTuple):
    """How large the body of a request may be, in bytes."""

    text_bytes: int
    """Without the images that are in it."""
    bytes: int
    """With them."""


@dataclass(frozen=True)
class WebSettings:
    """What the HTTP layer has to know of the application."""

    public_url: str
    """The base of every URL in a response: `public_url_of` has that of one request."""
    trusted_proxies: Sequence[Network]
    """The networks whose `X-Forwarded-For` is believed."""
    error_formats: "ErrorFormats"
    """The formats of errors on paths that do not answer with problem documents."""
    public_url_is_set: bool = True
    """Whether `public_url` is the operator's, and not the address that the server listens on."""
    cors: "CorsPolicy | None" = None
    """Which pages of other origins may call the API."""
    not_offered: Sequence[tuple[re.Pattern[str], str]] = ()
    """The sentences of 404s for paths that clients of another API ask for and that no route has. A pattern must match
    the whole path.
    """
    logs_addresses: bool = True
    """Whether the lines of requests have the client's address."""
    bounds: EdgeBounds = field(default_factory=EdgeBounds)
    body_bounds: Sequence[tuple[re.Pattern[str], BodyBounds]] = ()
    """The bounds of paths that take more than BODY_BYTES_MAX. A pattern must match the whole path; the first that does
    counts. They are asked for bodies of more than that.
    """


class LifespanState(TypedDict):
    """What the application's lifespan yields."""

    overload_guard: "OverloadGuard"
    connections: "Connections"
    prepared_refusals: "PreparedRefusals"
    web: WebSettings
    services: object
    """A `Services`, for features: `features.dependencies.services_of`."""
    console: object
    """A `Console`, for the console: `console.state.console_of`."""
    blobs: BlobSpace
    """Where large bodies are kept."""
    tracing: Tracing | None


class RequestState(TypedDict, total=False):
    """What the server, the middleware and the routes share about one request."""

    web: WebSettings
    services: object
    console: object
    blobs: BlobSpace
    tracing: Tracing | None
    overload_guard: "OverloadGuard"
    connections: "Connections"
    holds_slot: bool
    """Whether the request holds a slot of the OverloadGuard. HttpProtocol takes one, RequestMiddleware gives it back;
    in between, `OverloadGuard.without_slot` gives it back for as long as the body is awaited.
    """
    whole_body: bytes
    """The body, if all of it came with the head. HttpProtocol sets it, so that `receive_body` need not wait for it."""
    headers: Mapping[bytes, bytes]
    """The request's headers by name; of one that was sent more than once, the last value. HttpProtocol sets it, or
    under another server RequestMiddleware.
    """
    key_hashes: dict[tuple[bytes | None, ...], bytes]
    """The hash of the API key that came last on this connection, by the values of CREDENTIAL_HEADERS: a client sends
    the same key with each request. HttpProtocol sets it; all requests of a connection share it.
    """
    stop_waiting: Callable[[], None]
    """Set while the request waits because its client asked for that: ends it. The server's deadline does not count
    then, and HttpProtocol calls this when the process stops.
    """
    is_stopping: bool
    """Whether the process was to stop while this request was under way: then it must not begin to wait."""
    goes_on: bool
    """Whether the work goes on when the client has left: it may be paid for."""
    has_timed_out: bool
    """Whether HttpProtocol has answered with ResponseTimeout, in place of the application."""
    request_id: str
    """The `X-Request-Id` of the response. RequestMiddleware sets it, before anything else is called."""
    response_headers: dict[bytes, bytes]
    """Headers, named in lower case, that RequestMiddleware adds to the response, whether a success or an error."""
    account: str
    """The account's id, and the key's, the model that drew, the code of the error that was answered and the names of
    the limits that refused: for the request's line in the log.
    """
    key: str
    model: str
    code: str
    limit: str
    console_request: object
    """What the console knows of the request so far: `console.state.state_of`."""


def request_state(scope: Mapping[str, Any]) -> RequestState:
    """The state of this request, typed. It is the dictionary itself: what is set in it stays."""
    state: RequestState = scope["state"]
    return state
