"""One request and its answer, as the server holds them: uvicorn's, and quicker for the answers that nearly all are."""

import re

from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Exchange(RequestResponseCycle):
    """What the application receives and sends.

    An answer that comes whole (a length, then all of the body) leaves in one write. Whatever else is sent goes
    uvicorn's way. A body that has come with its head stands in the request's state as `body`: nobody has to wait for
    it, with a deadline.
    """

    _start: HTTPResponseStartEvent | None = None

    async def run_asgi(self, app: ASGI3Application) -> None:
        if not self.more_body:
            self.scope["state"]["body"] = bytes(self.body)
        await super().run_asgi(app)

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message  # it may leave with the body; if none comes, the server's own 500 takes its place
            return
        start, self._start = self._start, None
        if start is not None:
            if self._send_whole(start, message):
                return
            await super().send(start)
        await super().send(message)

    def _send_whole(self, start: HTTPResponseStartEvent, message: ASGISendEvent) -> bool:
        """Sends all of an answer, and says so; or nothing of it, where it is not of the usual kind."""
        if message["type"] != "http.response.body" or message.get("more_body") or self.scope["method"] == "HEAD":
            return False
        body, headers = message.get("body", b""), [*self.default_headers, *start["headers"]]
        head = _head(start["status"], headers, keep_alive=self.keep_alive)
        has_length = (b"content-length", b"%d" % len(body)) in headers
        if head is None or not has_length or self.disconnected or self.flow.write_paused:
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(head + body)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


def _head(status: int, headers: list[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes | None:
    """The head of an answer; None if a header is about the connection, or holds what would end its line."""
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        if name == b"connection":
            return None
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    head = b"".join(lines)
    count = len(headers) + (2 if keep_alive else 3)
    is_clean = head.count(b"\n") == head.count(b"\r") == count and _CONTROL.search(head) is None
    return head if is_clean else None
