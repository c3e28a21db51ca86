"""The HTTP protocol of the server: uvicorn's, with stricter framing, and with a bound on the requests at work."""

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from httptools import HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.web.fast_response import FastResponse
from app.web.framing import check_framing
from app.web.overload import PATHS_WITHOUT_SLOT, OverloadGuard
from app.web.parser import RequestParser
from app.web.prepared_refusals import PreparedRefusals
from app.web.state import request_state

_EARLY_BYTES_MAX = 16 * 1024


class HttpProtocol(HttpToolsProtocol):
    """One connection of a client or a proxy.

    A request that finds no free slot of the OverloadGuard is refused as soon as its head has been read: no task is
    created, and the application is not called. After a refusal the connection is quiet: nothing is read from it until
    the time in `Retry-After` is over. A client that calls again too early costs no more than one that waits, and one
    that waits does not notice. Connections of trusted proxies are always read, since each carries many clients.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._guard: OverloadGuard = self.app_state["overload_guard"]
        self._prepared_refusals: PreparedRefusals = self.app_state["prepared_refusals"]
        self._quiet_until: asyncio.TimerHandle | None = None
        self._early_data = b""
        self._expects_refused_body = False
        self._parser = RequestParser(self)
        self.parser = cast(HttpRequestParser, self._parser)  # it has the methods that uvicorn calls, and no others
        self._is_in_body = False
        self._current: RequestResponseCycle | None = None

    def data_received(self, data: bytes) -> None:
        if self._quiet_until is None or self._expects_refused_body:
            super().data_received(data)
        elif len(data) > _EARLY_BYTES_MAX:
            self.transport.close()
        else:  # reading stops only now: a client that hangs up without sending anything is noticed at once
            self._early_data += data
            self.flow.pause_reading()

    def on_headers_complete(self) -> None:
        """Raises AmbiguousRequestError, on which the parser stops, for a head that another parser could read in another
        way.
        """
        version, method = self.parser.get_http_version(), self.parser.get_method()
        check_framing(version=version, method=method, target=self.url, headers=self.headers)
        super().on_headers_complete()
        self._is_in_body = True
        self.headers = self.headers.copy()  # uvicorn adds trailers here: they must not join headers already checked

    def on_message_complete(self) -> None:
        if self._parser.has_stopped:
            return
        self._is_in_body = False
        super().on_message_complete()
        if self._expects_refused_body:
            self._expects_refused_body = False
            if self._quiet_until is None:
                self._start_keep_alive_timer()

    def send_400_response(self, msg: str) -> None:
        """Ends a connection on which something arrived that is not a request, once the requests before it are answered.

        The 400 itself is sent only where the client cannot take it for the response to another request.
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
            self.transport.write(self._prepared_refusals.unreadable(self.server_state.default_headers))
            self.transport.close()

    def _unanswered(self) -> Sequence[RequestResponseCycle]:
        """The requests whose heads have been read and whose responses have not been sent whole, in order."""
        waiting = [cycle for cycle, _ in reversed(self.pipeline)]
        return [each for each in (self._current, *waiting) if each is not None and not each.response_complete]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._parser.close()
        self._current = None
        if self._quiet_until is not None:
            self._quiet_until.cancel()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Uvicorn calls this for each request of the connection when its turn has come and its head has been read."""
        if self._quiet_until is not None:
            self.transport.close()  # it came in one piece with a refused request: this client waits for no response
        if self.transport.is_closing():
            return
        needs_slot = cycle.scope["path"] not in PATHS_WITHOUT_SLOT
        if needs_slot:
            if self._guard.free_slots <= 0:
                self._refuse(cycle)
                return
            self._guard.free_slots -= 1
        request_state(cycle.scope)["holds_slot"] = needs_slot
        cycle.__class__ = FastResponse  # uvicorn constructs it, and has no setting for the class
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, cycle: RequestResponseCycle) -> None:
        retry_after_seconds = self._guard.count_refusal(self.loop.time())
        # Requests behind it in the pipeline were sent without waiting for a response; a client that waits for a 100 may
        # or may not send the body now. In both cases the connection cannot go on.
        close = bool(self.pipeline) or cycle.waiting_for_100_continue or not cycle.keep_alive
        response = self._prepared_refusals.overloaded(
            cycle.scope["path"],
            retry_after_seconds=retry_after_seconds,
            server_headers=self.server_state.default_headers,
            without_body=cycle.scope["method"] == "HEAD",
            close=close,
        )
        self.transport.write(response)
        self.server_state.total_requests += 1
        self._expects_refused_body = cycle.more_body
        cycle.response_started = cycle.response_complete = True
        cycle.on_response = _do_nothing  # the connection's method there would keep both in memory until a collection
        if close:
            self.transport.close()
            return
        self.flow.resume_reading()
        if self._is_proxy:
            self._start_keep_alive_timer()
        else:
            self._quiet_until = self.loop.call_later(retry_after_seconds, self._end_quiet_time)

    @cached_property
    def _is_proxy(self) -> bool:
        return self._guard.is_proxy(self.client and self.client[0])

    def _end_quiet_time(self) -> None:
        self._quiet_until = None
        if self.transport.is_closing():
            return
        data, self._early_data = self._early_data, b""
        self.flow.resume_reading()
        if data:
            self.data_received(data)
        else:
            self._start_keep_alive_timer()

    def _start_keep_alive_timer(self) -> None:
        """Ends the connection if no request arrives for as long as idle connections are kept."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)


def _do_nothing() -> None:
    """Takes the place of a method that would be called after a response."""
