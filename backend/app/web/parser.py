"""The HTTP parser: llhttp, with protocol upgrades turned off."""

from collections.abc import Iterable
from typing import Protocol as Interface

import httptools

from app.web.framing import Header

_FRAMING_HEADERS = {b"content-length", b"transfer-encoding"}


class ParserCallbacks(Interface):
    """What the parser calls while it reads a request, in this order."""

    headers: list[Header]
    """The headers of the request whose head was read last, with names in lower case."""

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class RequestParser:
    """Reads requests; one that asks for another protocol is read like any other.

    llhttp stops after the head of such a request (`Connection: Upgrade` with `Upgrade`, or CONNECT), takes its body for
    bytes of the other protocol, and would then read that body as the next request. When it stops, a new llhttp takes
    over: it is first fed a head that says only how long the body is, and so reads the body and the requests after it.

    Has the methods of httptools' parser that uvicorn calls.
    """

    def __init__(self, callbacks: ParserCallbacks) -> None:
        self._callbacks = callbacks
        self._use(callbacks)

    def _use(self, callbacks: object) -> None:
        self._llhttp = httptools.HttpRequestParser(callbacks)
        # llhttp's own methods: calls of methods of this class, five for each request, would take longer.
        self.should_keep_alive = self._llhttp.should_keep_alive
        self.get_http_version = self._llhttp.get_http_version
        self.get_method = self._llhttp.get_method

    @property
    def has_stopped(self) -> bool:
        """Whether llhttp has stopped after this request's head: its `on_message_complete` does not mean that the body
        has been read.
        """
        return self._llhttp.should_upgrade()

    def feed_data(self, data: bytes) -> None:
        """Parses data of the connection. Raises httptools.HttpParserError for data that is not HTTP, and when a
        callback raises.
        """
        while True:
            try:
                self._llhttp.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data = data[stop.args[0] :]
                self._use(_AfterHead(self._callbacks))
                self._llhttp.feed_data(_head_of_body(self._callbacks.headers))
            else:
                return

    def close(self) -> None:
        """Drops the callbacks, whose owner refers to this parser. Nothing may be parsed afterwards."""
        vars(self).clear()

    def should_upgrade(self) -> bool:
        return False


class _AfterHead:
    """Passes on all callbacks except those of the first head, which stands for one that has been parsed already."""

    def __init__(self, callbacks: ParserCallbacks) -> None:
        self._callbacks = callbacks
        self._is_first_head = True
        self.on_body = callbacks.on_body
        self.on_message_complete = callbacks.on_message_complete

    def on_message_begin(self) -> None:
        if not self._is_first_head:
            self._callbacks.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_first_head:
            self._callbacks.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_first_head:
            self._callbacks.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_first_head:
            self._callbacks.on_headers_complete()
        self._is_first_head = False


def _head_of_body(headers: Iterable[Header]) -> bytes:
    """A head that announces a body of the same framing as these headers do."""
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] in _FRAMING_HEADERS]
    return b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines)
