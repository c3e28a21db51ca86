"""HTTP as the server speaks it: uvicorn's, with a door in front of the application."""

import asyncio
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.core.web.door import ALWAYS_ANSWERED, Door
from app.core.web.exchange import Exchange
from app.core.web.refusals import Refusals

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
        self._body_to_come = False  # of a request that was refused

    def data_received(self, data: bytes) -> None:
        if self._rest is None or self._body_to_come:
            super().data_received(data)
        elif len(data) > _EARLY_BYTES_MAX:
            self.transport.close()
        else:  # one piece is taken before reading stops: until then it is noticed at once when a caller hangs up
            self._early += data
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._body_to_come:
            self._body_to_come = False
            if self._rest is None:
                self._expect_another()

    def on_headers_complete(self) -> None:
        """As uvicorn does it, with an exchange of our own, and without what only its options and WebSockets need."""
        url, version = httptools.parse_url(self.url), self.parser.get_http_version()
        path = url.path.decode("ascii")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        before, self.cycle = (
            self.cycle,
            Exchange(
                scope=self.scope,
                transport=self.transport,
                flow=self.flow,
                logger=self.logger,
                access_logger=self.access_logger,
                access_log=False,
                default_headers=self.server_state.default_headers,
                message_event=asyncio.Event(),
                expect_100_continue=self.expect_100_continue,
                keep_alive=version != "1.0" and self.parser.should_keep_alive(),
                on_response=self.on_response_complete,
            ),
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # its turn comes when the one before it has been answered
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
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
        super()._start_asgi_task(cycle, app)

    def _refuse(self, cycle: RequestResponseCycle) -> None:
        retry_after_seconds = self._door.refuse(self.loop.time())
        # What is behind it in the pipeline came without waiting; who waits for a 100 may or may not send the body now.
        close = bool(self.pipeline) or cycle.waiting_for_100_continue or not cycle.keep_alive
        answer = self._refusals.answer(
            cycle.scope["path"],
            retry_after_seconds=retry_after_seconds,
            server_headers=self.server_state.default_headers,
            without_body=cycle.scope["method"] == "HEAD",
            close=close,
        )
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self._body_to_come = cycle.more_body
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
