"""The HTTP protocol of the server: uvicorn's, with stricter framing, and with bounds on what a client may hold."""

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from httptools import HttpRequestParser
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.core.draining import IDLE_SECONDS
from app.core.errors import ApiError, HeadersTooLarge, InvalidRequest, Overloaded, RequestTimeout
from app.core.logs import logger
from app.web.client_address import customer_of
from app.web.connections import Connections, Wait, WaitFor, acknowledged_bytes, reset
from app.web.fast_response import FastResponse, hang_up
from app.web.framing import HEADERS_MAX, REQUEST_LINE_BYTES_MAX, Header, Unfinished, check_framing, oversize
from app.web.merged_slashes import merge_slashes
from app.web.middleware import known_method
from app.web.overload import PATHS_WITHOUT_SLOT, OverloadGuard
from app.web.parser import RequestParser
from app.web.prepared_refusals import PreparedRefusals
from app.web.state import RequestState, request_state

_EARLY_BYTES_MAX = 16 * 1024
_DROPPED_BYTES_MAX = 1024 * 1024


class HttpProtocol(HttpToolsProtocol):
    """One connection of a client or a proxy.

    A request that finds no free slot of the OverloadGuard is refused as soon as its head has been read: no task is
    created, and the application is not called. After a refusal the connection is quiet: nothing is read from it until
    the time in `Retry-After` is over. A client that calls again too early costs no more than one that waits, and one
    that waits does not notice. Connections of trusted proxies are always read, since each carries many clients.

    A request that is larger or slower than it may be is refused, and ends the connection; so does anything that is not
    a request. Requests before it are answered first.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.url = b""  # which uvicorn sets with the first request
        self.app_state = {**self.app_state, "key_hashes": {}}
        self._guard: OverloadGuard = self.app_state["overload_guard"]
        self._prepared_refusals: PreparedRefusals = self.app_state["prepared_refusals"]
        self._quiet_until: asyncio.TimerHandle | None = None
        self._early_data = b""
        self._expects_refused_body = False
        self._parser = RequestParser(self)
        self.parser = cast(HttpRequestParser, self._parser)  # it has the methods that uvicorn calls, and no others
        self._current: RequestResponseCycle | None = None
        self._checked_headers: list[Header] | None = None  # those of the head that was read last
        self._headers_before: list[Header] | None = None  # the same, before the data that is being read
        self._is_in_body = False
        self._body_bytes = 0
        self._unfinished = Unfinished()
        self._new_bytes = 0  # of the head that is being read, at most
        self._refuses_with: type[ApiError] = InvalidRequest
        self._is_ending = False
        self._dropped_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._connections: Connections = self.app_state["connections"]
        self._start_keep_alive_timer()
        if not self._connections.add(self, address=self._counted_address):
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            self._drop(data)
        elif self._quiet_until is None or self._expects_refused_body:
            body_bytes = self._body_bytes
            self._new_bytes = self._unfinished.size + len(data)
            super().data_received(data)
            if self._is_in_body or self.headers is not self._checked_headers:
                has_advanced = self._headers_before is not self._checked_headers or body_bytes != self._body_bytes
                self._bound_unfinished(data, has_advanced=has_advanced)
            elif self._unfinished.size:
                self._unfinished = Unfinished()
            self._headers_before = self._checked_headers
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
        if self._new_bytes > REQUEST_LINE_BYTES_MAX or len(self.headers) > HEADERS_MAX:
            too_large = oversize(method=method, target=self.url, headers=self.headers)
            if too_large is not None:
                self._refuses_with = too_large
                raise too_large
        state = request_state(self.scope)
        state["headers"] = check_framing(version=version, method=method, target=self.url, headers=self.headers)
        super().on_headers_complete()
        self._is_in_body, self._body_bytes = True, 0
        # Uvicorn adds trailers here: they must not join headers already checked.
        self._checked_headers = self.headers = self.headers.copy()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._parser.has_stopped:
            return
        self._is_in_body = False
        super().on_message_complete()
        if self._headers_before is not self._checked_headers:  # it came with the head, so its task has not begun yet
            request_state(self.scope)["whole_body"] = bytes(self.cycle.body)
        if self._expects_refused_body:
            self._expects_refused_body = False
            if self._quiet_until is None:
                self._start_keep_alive_timer()

    def send_400_response(self, msg: str) -> None:
        """Uvicorn calls this when the parser has stopped at something that is not a request, or too large for one."""
        del msg  # uvicorn has logged it
        self._refuse_rest(self._refuses_with)

    def _bound_unfinished(self, data: bytes, *, has_advanced: bool) -> None:
        """Refuses a head or trailers that have grown too large before their end has arrived."""
        if self._is_ending:
            return
        if has_advanced:
            self._unfinished = Unfinished(data)
        else:
            self._unfinished.add(data)
        too_large: type[ApiError] | None = HeadersTooLarge if self._unfinished.is_too_large else None
        if self.headers is not self._checked_headers:
            too_large = oversize(method=b"", target=self.url, headers=self.headers) or too_large
        if too_large is not None:
            self._refuse_rest(too_large)

    def _refuse_rest(self, error: type[ApiError]) -> None:
        """Ends the connection once the requests before what is being read are answered.

        Without any before it, what is being read is answered with this error. Behind other answers it is not: a proxy
        that shares the connection could give it to another client. Nor can a response that has begun become an error.
        """
        self._is_ending = True
        broken = self.cycle if self._is_in_body else None
        if broken is not None and self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
        before = [each for each in self._unanswered() if each is not broken]
        if before:
            before[-1].keep_alive = False
            self.flow.pause_reading()
        elif broken is not None and broken.response_started:
            self.transport.close()
        else:
            if broken is not None:
                hang_up(broken)
            self._guard.metrics.count_refused(error.status)
            url, headers = self.url or b"", self.headers or ()  # as far as they have been read
            refusal = self._prepared_refusals.ending(error, url, headers, self.server_state.default_headers)
            self._end_with(refusal)

    def _time_out(self, late: FastResponse) -> None:
        """Answers the request in place of the application, and ends the connection: what was sent behind it is not
        answered, and nothing that the application still sends reaches the client.
        """
        logger.error("response_timeout", request_id=request_state(late.scope).get("request_id"))
        self._is_ending = True
        self.pipeline.clear()
        late.time_out(self.tasks)
        self._end_with(self._prepared_refusals.response_timeout(late.scope, self.server_state.default_headers))

    def _end_with(self, response: bytes) -> None:
        """Sends the response, and goes on reading for a while: if the system had unread bytes when the connection is
        closed, it would reset it, and the client might lose the response.
        """
        if self.transport.is_closing():
            return
        self._current = None
        self.transport.write(response)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _drop(self, data: bytes) -> None:
        self._dropped_bytes += len(data)
        if self._dropped_bytes > _DROPPED_BYTES_MAX:
            self.transport.abort()

    def wait(self) -> Wait:
        """What the connection waits for. Connections asks for it with every sweep."""
        if self.transport.get_write_buffer_size():
            return Wait(WaitFor.READER, amount=acknowledged_bytes(self.transport))
        awaits_body = self._is_in_body and not (
            self.pipeline
            or self._is_ending
            or self.cycle.waiting_for_100_continue  # the client waits for the server
            or self.flow.read_paused  # so does one that sends faster than its body is taken
        )
        is_at_work = self._current is not None and not self._current.response_complete and not awaits_body
        has_begun = self._current is not None and (self._current.response_started or "stop_waiting" in self._state)
        if (is_at_work and has_begun) or self.transport.is_closing():
            return Wait(WaitFor.NOTHING)
        if is_at_work:
            return Wait(WaitFor.RESPONSE, of=self._current)
        if self._is_ending:
            return Wait(WaitFor.HANGUP)
        if awaits_body:
            return Wait(WaitFor.BODY, of=self.cycle, amount=self._body_bytes)
        idle = self._quiet_until or self.timeout_keep_alive_task
        is_in_head = idle is None or self.headers is not self._checked_headers
        return Wait(WaitFor.HEAD, of=self.cycle) if is_in_head else Wait(WaitFor.NEXT_REQUEST, of=idle)

    def end_wait(self, kind: WaitFor) -> None:
        """Ends the connection, because its client has kept it waiting for too long, or it its client."""
        if kind in {WaitFor.HEAD, WaitFor.BODY}:
            self._refuse_rest(RequestTimeout)
        elif kind is WaitFor.NEXT_REQUEST:
            self.transport.close()
        elif kind is WaitFor.READER:
            reset(self.transport)
        elif kind is WaitFor.RESPONSE and isinstance(self._current, FastResponse):
            self._time_out(self._current)
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """Uvicorn calls this when the process stops: the connection ends with the response under way, or where there is
        none at once; a client that waits for a change is answered now. While the process drains, a request may be on
        its way, and an idle connection is kept for a while.
        """
        is_idle = self.cycle is None or self.cycle.response_complete
        self._state["is_stopping"] = True
        if "stop_waiting" in self._state:
            self._state["stop_waiting"]()
        if is_idle and self._connections.draining.has_begun:
            self.loop.call_later(IDLE_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def _unanswered(self) -> Sequence[RequestResponseCycle]:
        """The requests whose heads have been read and whose responses have not been sent whole, in order."""
        waiting = [cycle for cycle, _ in reversed(self.pipeline)]
        return [each for each in (self._current, *waiting) if each is not None and not each.response_complete]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections.remove(self, address=self._counted_address)
        self._unset_keepalive_if_required()
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
        if b"//" in cycle.scope["raw_path"]:
            merge_slashes(cycle.scope)
        needs_slot = cycle.scope["path"] not in PATHS_WITHOUT_SLOT
        if needs_slot:
            if self._guard.free_slots <= 0:
                self._refuse(cycle)
                return
            self._guard.free_slots -= 1
        request_state(cycle.scope)["holds_slot"] = needs_slot
        if self._connections.draining.has_begun and not self.pipeline:
            cycle.keep_alive = False
        cycle.__class__ = FastResponse  # uvicorn constructs it, and has no setting for the class
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, cycle: RequestResponseCycle) -> None:
        retry_after_seconds = self._guard.count_refusal(self.loop.time())
        self._guard.metrics.count_refused(Overloaded.status, known_method(cycle.scope["method"]))
        # Requests behind it in the pipeline were sent without waiting for a response; a client that waits for a 100 may
        # or may not send the body now. In both cases the connection cannot go on.
        close = bool(self.pipeline) or cycle.waiting_for_100_continue or not cycle.keep_alive or self._is_ending
        response = self._prepared_refusals.overloaded(
            cycle.scope["path"],
            cycle.scope["headers"],
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

    @property
    def _state(self) -> RequestState:
        """Of the request that the application has."""
        return {} if self._current is None else request_state(self._current.scope)

    @cached_property
    def _is_proxy(self) -> bool:
        return self._guard.is_proxy(self.client and self.client[0])

    @cached_property
    def _counted_address(self) -> str | None:
        """Whose connections this one is counted among; None for a trusted proxy."""
        return None if self._is_proxy or self.client is None else customer_of(self.client[0])

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
