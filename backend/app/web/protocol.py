"""HTTP as the server speaks it: uvicorn's, with stricter framing and a door in front of the application."""

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from httptools import HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.web.fast_response import Exchange
from app.web.framing import check_framing
from app.web.overload import ALWAYS_ANSWERED, Door
from app.web.parser import RequestParser
from app.web.prepared_refusals import Refusals

_EARLY_BYTES_MAX = 16 * 1024


class Protocol(HttpToolsProtocol):
    """One connection. A request for which there is no room is refused before anything is done for it: no task is made,
    and the application does not hear of it.

    Until the time is over that such a caller was told to wait, the next request is left where it is. So whoever does
    not wait costs as little as whoever does, who notices nothing. The connection of a trusted proxy carries many
    callers, and is always listened to.

    In the state of the application's lifespan, `door` is the door and `refusals` what the refused are told. `place` in
    a request's state says whether it has one; the application gives it back.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door: Door = self.app_state["door"]
        self._refusals: Refusals = self.app_state["refusals"]
        self._rest: asyncio.TimerHandle | None = None
        self._early = b""
        self._expects_refused_body = False
        self._parser = RequestParser(self)
        self.parser = cast(HttpRequestParser, self._parser)  # of its methods it has those that uvicorn calls
        self._is_in_body = False
        self._at_work: RequestResponseCycle | None = None

    def data_received(self, data: bytes) -> None:
        if self._rest is None or self._expects_refused_body:
            super().data_received(data)
        elif len(data) > _EARLY_BYTES_MAX:
            self.transport.close()
        else:  # one piece is taken before reading stops: until then it is noticed at once when a caller hangs up
            self._early += data
            self.flow.pause_reading()

    def on_headers_complete(self) -> None:
        """Raises AmbiguousRequestError, on which the parser stops, for what another parser could read differently."""
        version, method = self.parser.get_http_version(), self.parser.get_method()
        check_framing(version=version, method=method, target=self.url, headers=self.headers)
        super().on_headers_complete()
        self._is_in_body = True
        self.headers = self.headers.copy()  # uvicorn puts trailers here: they must not join what has been checked

    def on_message_complete(self) -> None:
        if self._parser.has_stopped:
            return
        self._is_in_body = False
        super().on_message_complete()
        if self._expects_refused_body:
            self._expects_refused_body = False
            if self._rest is None:
                self._expect_another()

    def send_400_response(self, msg: str) -> None:
        """Ends a connection on which something came that is no request, after the answers to the requests before it.

        The refusal itself is sent only where the client cannot take it for the answer to another request.
        """
        del msg  # uvicorn has logged it
        broken = self.cycle if self._is_in_body else None
        if broken is not None and self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
        before = [each for each in self._unanswered() if each is not broken]
        if before:
            before[-1].keep_alive = False
            self.flow.pause_reading()
        elif broken is not None and broken.response_started:
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write(self._refusals.unreadable(self.server_state.default_headers))
            self.transport.close()

    def _unanswered(self) -> Sequence[RequestResponseCycle]:
        """The requests whose heads have been read and whose answers have not been sent whole, in order."""
        waiting = [cycle for cycle, _ in reversed(self.pipeline)]
        return [each for each in (self._at_work, *waiting) if each is not None and not each.response_complete]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._parser.close()
        self._at_work = None
        if self._rest is not None:
            self._rest.cancel()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Called for each request whose turn it is on this connection, once its headers are there."""
        if self._rest is not None:
            self.transport.close()  # it came in one piece with the one that was refused: nobody there waits for answers
        if self.transport.is_closing():
            return
        place = cycle.scope["path"] not in ALWAYS_ANSWERED
        if place and self._door.room <= 0:
            self._refuse(cycle)
            return
        self._door.room -= place
        cycle.scope["state"]["place"] = place
        cycle.__class__ = Exchange  # uvicorn has made it, and knows of no other class
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, cycle: RequestResponseCycle) -> None:
        retry_after_seconds = self._door.refuse(self.loop.time())
        # What is behind it in the pipeline came without waiting; who waits for a 100 may or may not send the body now.
        close = bool(self.pipeline) or cycle.waiting_for_100_continue or not cycle.keep_alive
        answer = self._refusals.overloaded(
            cycle.scope["path"],
            retry_after_seconds=retry_after_seconds,
            server_headers=self.server_state.default_headers,
            without_body=cycle.scope["method"] == "HEAD",
            close=close,
        )
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self._expects_refused_body = cycle.more_body
        cycle.response_started = cycle.response_complete = True
        cycle.on_response = _nothing  # or connection and request would hold each other until the collector comes by
        if close:
            self.transport.close()
            return
        self.flow.resume_reading()
        if self._is_proxy:
            self._expect_another()
        else:
            self._rest = self.loop.call_later(retry_after_seconds, self._listen_again)

    @cached_property
    def _is_proxy(self) -> bool:
        return self._door.is_proxy(self.client and self.client[0])

    def _listen_again(self) -> None:
        self._rest = None
        if self.transport.is_closing():
            return
        early, self._early = self._early, b""
        self.flow.resume_reading()
        if early:
            self.data_received(early)
        else:
            self._expect_another()

    def _expect_another(self) -> None:
        """Ends the connection if nothing comes for as long as connections are kept."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)


def _nothing() -> None:
    """For a request that has been answered."""
