"""Typed access to what the application and the request hold for the console. No other module here reads their state."""

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from app.console.forms import SubmittedForm
from app.console.rendering import Console
from app.console.session import ConsoleSession
from app.web.state import request_state


def console_of(request: Request) -> Console:
    """The console that the application was built with."""
    return cast(Console, request_state(request.scope)["console"])


@dataclass
class ConsoleRequest:
    """What is known of a request so far. If an error ends the request, its page is rendered from this."""

    request_id: str
    session: ConsoleSession | None = None
    form: SubmittedForm | None = None


def state_of(request: Request) -> ConsoleRequest:
    """The request's own, the same each time."""
    state = request_state(request.scope)
    if "console_request" not in state:
        state["console_request"] = ConsoleRequest(state["request_id"])
    return cast(ConsoleRequest, state["console_request"])
