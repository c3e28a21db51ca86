"""The server's side of one request: uvicorn's, with one write for a response that comes whole."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, cast

from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.web.connections import Connection
from app.web.state import request_state

_JOINED_BYTES_MAX = 64 * 1024
_WHOLE_BYTES_MAX = 256 * 1024
_PIECE_BYTES = 64 * 1024
_CONTROL = bytes({*range(32), 127} - {ord("\t")})


class FastResponse(RequestResponseCycle):
    """Runs the application for one request and sends its response.

    A response with a `Content-Length` and all of its body in one message is sent in one write, or two if it is larger.
    Uvicorn's code sends any other, and of a body above 256 KiB one piece after another. The bytes on the connection are
    the same. Sending a response that is too large for the system's buffers ends when its client has read most of it, or
    is gone: what the application holds for a response it holds until then. The transport holds 320 KiB at most.
    """

    _start: HTTPResponseStartEvent | None = None
    _run: Coroutine[Any, Any, None] | None = None

    def run_asgi(self, app: ASGI3Application) -> Coroutine[Any, Any, None]:
        self._run = super().run_asgi(app)
        return self._run

    def time_out(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Ends the request, which the protocol answers in place of the application: for that, the client has hung up.
        Its work, which is one of the tasks, is cancelled, unless it goes on for clients that have left.
        """
        state = request_state(self.scope)
        state["has_timed_out"] = True
        hang_up(self)
        if not state.get("goes_on", False):
            for task in tasks:
                if task.get_coro() is self._run:
                    task.cancel()

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message  # sent with the body; if no body comes, uvicorn sends its own 500 instead
            return
        start, self._start = self._start, None
        body = cast(bytes, message.get("body", b""))
        if start is None or not self._send_whole(start, message):
            if start is not None:
                await super().send(start)
            if len(body) > _WHOLE_BYTES_MAX:
                message = await self._send_all_but_last(body, message)
            await super().send(message)
        if self.flow.write_paused:
            await self._until_read(len(body))

    async def _send_all_but_last(self, body: bytes, message: ASGISendEvent) -> ASGISendEvent:
        """Sends the body in pieces, each when its client has read most of what came before; returns the last one."""
        last = (len(body) - 1) // _PIECE_BYTES * _PIECE_BYTES
        for at in range(0, last, _PIECE_BYTES):
            piece = body[at : at + _PIECE_BYTES]
            await super().send({"type": "http.response.body", "body": piece, "more_body": True})
            if self.flow.write_paused:
                await self._until_read(len(body))
            else:
                await asyncio.sleep(0)  # others come in between
        return cast(ASGISendEvent, {**message, "body": body[last:]})

    async def _until_read(self, count: int) -> None:
        """Waits until the client has read most of what was sent. Meanwhile so many bytes count as unread, or as many as
        the transport has.
        """
        connection = cast(Connection, self.transport.get_protocol())
        unread = max(count, self.transport.get_write_buffer_size())
        with request_state(self.scope)["connections"].unread(connection, unread):
            await self.flow.drain()

    def _send_whole(self, start: HTTPResponseStartEvent, message: ASGISendEvent) -> bool:
        """Sends the whole response and returns True, or sends nothing and returns False if it is not of that kind."""
        if message["type"] != "http.response.body" or message.get("more_body") or self.scope["method"] == "HEAD":
            return False
        body, headers = message.get("body", b""), [*self.default_headers, *start["headers"]]
        if len(body) > _WHOLE_BYTES_MAX:
            return False
        head = _head(start["status"], headers, keep_alive=self.keep_alive)
        has_length = (b"content-length", b"%d" % len(body)) in headers
        if head is None or not has_length or self.disconnected or self.flow.write_paused:
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if len(body) <= _JOINED_BYTES_MAX:
            self.transport.write(head + body)
        else:  # not copied
            self.transport.write(head)
            self.transport.write(body)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


def hang_up(cycle: RequestResponseCycle) -> None:
    """For the application, the client has hung up: it receives `http.disconnect`, and what it sends is dropped."""
    cycle.disconnected = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()


def _head(status: int, headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes | None:
    """The head of a response; None if it has a `Connection` header, or a control character, which could end a line."""
    lines = []
    for name, value in headers:
        if name == b"connection":
            return None
        lines.append(name + b": " + value)
    text = b"".join(lines)
    if len(text.translate(None, delete=_CONTROL)) < len(text):
        return None
    lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    return STATUS_LINE[status] + b"\r\n".join(lines)
