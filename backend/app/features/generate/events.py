"""The events of one generation: its status, and each change of it, until it has ended."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.errors import InternalError, as_api_error
from app.features.dependencies import services_of
from app.features.generate.asynchronous import next_state, waiting
from app.features.generate.schemas import GenerationShown
from app.features.watched import EVENT_STREAM, KEEP_ALIVE, KEEP_ALIVE_SECONDS, STREAM_HEADERS
from app.generations.jobs.state import GenerationState
from app.generations.jobs.waiting import WaitingCaller
from app.generations.spec import Caller
from app.web.headers import header_values

LAST_EVENT_ID: dict[str, Any] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The `id` of the last event that arrived: the status that it told is not told again.",
    "schema": {"type": "string", "examples": ["1795689036721-queued"]},
}
"""The header as OpenAPI describes it."""


def events_response(request: Request, caller: Caller, found: GenerationState) -> Response:
    """The events from `found` on, less what the client has seen by its `Last-Event-ID`. Where nothing is left, a 204,
    after which browsers do not connect again.
    """
    _, _, seen = "".join(header_values(request, b"last-event-id")).partition("-")
    if found.has_ended and found.status == seen:
        return Response(status_code=204)
    return _Events(request, caller, found, seen=seen)


class _Events(Response):
    """The response. It enters the waiting callers before it begins, and leaves them however it ends."""

    def __init__(self, request: Request, caller: Caller, found: GenerationState, *, seen: str) -> None:
        super().__init__()
        self._request = request
        self._caller = caller
        self._found = found
        self._seen = seen
        self._milliseconds = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Overloaded where too many wait, before anything is sent."""
        with waiting(self._request, self._caller) as waiter:
            stream = StreamingResponse(self._events(waiter), media_type=EVENT_STREAM, headers=STREAM_HEADERS)
            await stream(scope, receive, send)

    async def _events(self, waiter: WaitingCaller) -> AsyncIterator[bytes]:
        found, clock = self._found, asyncio.get_running_loop().time
        if found.status != self._seen:
            yield self._event(found)
        while not (found.has_ended or waiter.is_stopped):
            before, until = found.status, clock() + KEEP_ALIVE_SECONDS
            try:
                found = await next_state(self._request, self._caller, found, waiter, until=until)
            except Exception as error:
                if as_api_error(error).status == InternalError.status:
                    raise
                return  # it was deleted, the key was revoked, or the database is away: the client asks again
            yield KEEP_ALIVE if found.status == before else self._event(found)

    def _event(self, found: GenerationState) -> bytes:
        """Its id begins with the time, and so grows on whichever process the client is, and ends with the status."""
        now = int(services_of(self._request).generations.clock() * 1000)
        self._milliseconds = max(self._milliseconds + 1, now)
        data = GenerationShown.write(found).decode()
        return f"id: {self._milliseconds}-{found.status}\nevent: status\ndata: {data}\n\n".encode()
