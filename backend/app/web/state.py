"""What `app.web` keeps in the application's lifespan state and in `scope["state"]`: every key, with its type."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from app.web.overload import OverloadGuard

if TYPE_CHECKING:  # that module imports this one
    from app.web.prepared_refusals import PreparedRefusals


class LifespanState(TypedDict):
    """What the application's lifespan yields, and HttpProtocol reads for each connection."""

    overload_guard: OverloadGuard
    prepared_refusals: "PreparedRefusals"


class RequestState(TypedDict, total=False):
    """What the server, the middleware and the routes share about one request."""

    holds_slot: bool
    """Whether the request holds a slot of the OverloadGuard. HttpProtocol sets it; RequestMiddleware takes it out, and
    gives the slot back.
    """
    whole_body: bytes
    """The body, if all of it came with the head. FastResponse sets it, so that `read_body` need not wait for it."""
    request_id: str
    """The `X-Request-Id` of the response. RequestMiddleware sets it, before anything else is called."""
    response_headers: dict[bytes, bytes]
    """Headers, named in lower case, that RequestMiddleware adds to the response, whether a success or an error."""


def lifespan_state(app_state: Mapping[str, Any]) -> LifespanState:
    """The state that the application's lifespan yielded, typed."""
    return {"overload_guard": app_state["overload_guard"], "prepared_refusals": app_state["prepared_refusals"]}


def request_state(scope: Mapping[str, Any]) -> RequestState:
    """The state of this request, typed. It is the dictionary itself: what is set in it stays."""
    state: RequestState = scope["state"]
    return state
