"""The server's side of one request: uvicorn's, with one write for a response that comes whole."""

from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.web.state import request_state

_JOINED_BYTES_MAX = 64 * 1024
_CONTROL = bytes({*range(32), 127} - {ord("\t")})


class FastResponse(RequestResponseCycle):
    """Runs the application for one request and sends its response.

    A response with a `Content-Length` and all of its body in one message is sent in one write, or two if it is large.
    Uvicorn's code sends any other. The bytes on the connection are the same. Sending a response that is too large for
    the system's buffers ends when its client has read most of it, or is gone: what the application holds for a response
    it holds until then.

    If the whole body of the request came with the head, it is put into the request's state, so that nothing has to wait
    for it with a deadline.
    """

    _start: HTTPResponseStartEvent | None = None
    large_bytes = 0
    """The size of a large body, of which the transport keeps all until it is sent whole."""

    async def run_asgi(self, app: ASGI3Application) -> None:
        if not self.more_body:
            request_state(self.scope)["whole_body"] = bytes(self.body)
        await super().run_asgi(app)

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message  # sent with the body; if no body comes, uvicorn sends its own 500 instead
            return
        start, self._start = self._start, None
        if start is not None:
            if self._send_whole(start, message):
                if self.flow.write_paused:
                    await self.flow.drain()
                return
            await super().send(start)
        await super().send(message)
        if self.flow.write_paused:
            await self.flow.drain()

    def _send_whole(self, start: HTTPResponseStartEvent, message: ASGISendEvent) -> bool:
        """Sends the whole response and returns True, or sends nothing and returns False if it is not of that kind."""
        if message["type"] != "http.response.body" or message.get("more_body") or self.scope["method"] == "HEAD":
            return False
        body, headers = message.get("body", b""), [*self.default_headers, *start["headers"]]
        head = _head(start["status"], headers, keep_alive=self.keep_alive)
        has_length = (b"content-length", b"%d" % len(body)) in headers
        if head is None or not has_length or self.disconnected or self.flow.write_paused:
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if len(body) <= _JOINED_BYTES_MAX:
            self.transport.write(head + body)
        else:  # not copied
            self.large_bytes = len(body)
            self.transport.write(head)
            self.transport.write(body)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


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
