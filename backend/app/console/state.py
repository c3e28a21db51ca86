"""Typed access to what the application and the request hold for the console. No other module here reads their state."""

from dataclasses import dataclass

from fastapi import Request

from app.console.forms import SubmittedForm
from app.console.rendering import Console
from app.console.session import ConsoleSession
from app.core.db import SessionMaker
from app.features.generate.studio import Studio


def console_of(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


def session_maker_of(request: Request) -> SessionMaker:
    session_maker: SessionMaker = request.app.state.sessions
    return session_maker


def studio_of(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


@dataclass
class RequestState:
    """What is known of a request so far. If an error ends the request, its page is rendered from this."""

    request_id: str
    session: ConsoleSession | None = None
    form: SubmittedForm | None = None


def state_of(request: Request) -> RequestState:
    """The request's own, the same each time."""
    if not hasattr(request.state, "console"):
        request.state.console = RequestState(request.state.request_id)
    state: RequestState = request.state.console
    return state
