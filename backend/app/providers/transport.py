"""HTTP/1.1 straight to a host, by llhttp on the event loop: for large messages, and for thousands of calls at once."""

import asyncio
import re
import select
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from ssl import SSLContext
from typing import cast

import httptools
import httpx2

from app.providers.connect import Resolver, connected_socket

BUFFER_BYTES = 256 * 1024
_HEAD_BYTES_MAX, _HEAD_READ_BYTES = 100 * 1024, 16 * 1024
_SWITCHING_PROTOCOLS, _FIRST_FINAL_STATUS = 101, 200
_CONTROL = re.compile(rb"[\x00\r\n]")
_FIRST_BYTE = "http11.send_request_headers.started"

Origin = tuple[str, str, int | None, str | None]


class DirectTransport(httpx2.AsyncBaseTransport):
    """One call at a time, on a connection that is kept for the next call to the same origin within `idle_seconds`.

    Takes from a request's extensions: `timeout` (`connect`, and `read`, the longest silence), `sni_hostname`, and
    `trace`, which is awaited once, before the first byte is written. Raises httpx2's ConnectError, ConnectTimeout,
    ReadError, ReadTimeout, LocalProtocolError, RemoteProtocolError for anything but a whole HTTP response, and what
    `trace` raises.

    Before a response's body is iterated over, at most 16 KiB of it are in memory; then 256 KiB may be ahead. Of a
    request's body that is no bytes, 512 KiB and a piece may be; a response that comes earlier ends writing it.
    """

    def __init__(self, ssl_context: SSLContext, resolver: Resolver, *, buffer: memoryview, idle_seconds: float) -> None:
        """All transports of one event loop may share the buffer, of BUFFER_BYTES: nothing stays in it."""
        self._ssl_context = ssl_context
        self._resolver = resolver
        self._buffer = buffer
        self._idle_seconds = idle_seconds
        self._connection: _Connection | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        seconds, trace = request.extensions.get("timeout", {}), request.extensions.get("trace")
        is_whole = isinstance(request.stream, httpx2.ByteStream)
        message = _head(request) + (request.content if is_whole else b"")
        connection = self._kept(_origin(request)) or await self._connect(request, seconds.get("connect"))
        self._connection = connection
        try:
            if trace is not None:
                await trace(_FIRST_BYTE, {"request": request})
            connection.send(message, keep=request.headers.get("connection", "").lower() != "close")
            if not is_whole:
                await connection.send_rest(aiter(cast("httpx2.AsyncByteStream", request.stream)), seconds.get("read"))
            while not connection.has_head:
                await connection.wait(seconds.get("read"))
        except BaseException:
            await self.aclose()
            raise
        return httpx2.Response(
            connection.status, headers=connection.headers, stream=_Body(connection, seconds.get("read"))
        )

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _kept(self, origin: Origin) -> "_Connection | None":
        kept, self._connection = self._connection, None
        if kept is None or (kept.origin == origin and kept.is_reusable(self._idle_seconds)):
            return kept
        kept.abort()
        return None

    async def _connect(self, request: httpx2.Request, seconds: float | None) -> "_Connection":
        url = request.url
        is_tls, host = url.scheme == "https", url.raw_host.decode("ascii")
        name = request.extensions.get("sni_hostname", host) if is_tls else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(_origin(request), self._buffer),
                    sock=await connected_socket(host, url.port or (443 if is_tls else 80), self._resolver),
                    ssl=self._ssl_context if is_tls else None,
                    server_hostname=name,
                )
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("", request=request) from error
        except OSError as error:  # of which ssl.SSLError is one
            raise httpx2.ConnectError("", request=request) from error
        return connection


class _Connection(asyncio.BufferedProtocol):
    """A connection, and the response that it receives."""

    def __init__(self, origin: Origin, buffer: memoryview) -> None:
        self.origin = origin
        self.status, self.headers = 0, list[tuple[bytes, bytes]]()
        self.has_head, self.is_complete = False, True
        self._buffer = buffer
        self._chunks, self._bytes_ahead = deque[bytes](), 0
        self._framing_bytes = 0  # of the head, or received since the last byte of the body: of chunks, or trailers
        self._is_closed = self._may_be_kept = self._is_paused = False
        self._is_full = self._is_partly_sent = False
        self._failure: httpx2.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._idle_since = self._loop.time()

    def send(self, message: bytes, *, keep: bool) -> None:
        """Sends a request, or its begin. What arrives from now on is its response."""
        self.status, self.headers, self.has_head, self.is_complete = 0, [], False, False
        self._framing_bytes, self._asks_to_keep, self._may_be_kept, self._is_read = 0, keep, False, False
        if self._is_closed:
            self._failure = httpx2.ReadError("the connection ended before the request")
        else:
            self._parser = httptools.HttpResponseParser(self)
            self._transport.write(message)

    async def send_rest(self, body: AsyncIterator[bytes], seconds: float | None) -> None:
        """Sends the body as fast as the other side reads it, or until the response comes. Raises what `wait` raises."""
        self._is_partly_sent = True
        async with aclosing(cast("AsyncGenerator[bytes, None]", body)) as pieces:
            async for piece in pieces:
                while self._is_full and not self.has_head:
                    await self.wait(seconds)
                if self.has_head:
                    return
                if self._failure is not None:
                    raise self._failure
                self._transport.write(piece)
        self._is_partly_sent = False

    async def wait(self, seconds: float | None) -> None:
        """Returns when more has arrived. Raises ReadTimeout after so much silence, and what ended the connection."""
        if self._failure is not None:
            raise self._failure
        self._is_read = self.has_head
        self._resume()
        self._waiter = self._loop.create_future()
        # A timer alone: a timeout context for each piece of a response is more than a wait needs.
        silence = None if seconds is None else self._loop.call_later(seconds, self._time_out)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if silence is not None:
                silence.cancel()
        if self._failure is not None:
            raise self._failure

    def take(self) -> bytes | None:
        """The next chunk of the body, if it has arrived."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._bytes_ahead -= len(chunk)
        return chunk

    def is_reusable(self, idle_seconds: float) -> bool:
        """Whether the last response was whole, and the other side has sent nothing since, not even the end."""
        if self._is_closed or self._transport.is_closing() or self._transport.get_write_buffer_size():
            return False
        if not (self.is_complete and self._may_be_kept):
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return self._loop.time() - self._idle_since < idle_seconds and not poll.poll(0)

    def end_response(self) -> None:
        """Drops what was not taken of the response, and closes the connection unless both messages are whole."""
        self._chunks.clear()
        self._bytes_ahead = 0
        self._resume() if self.is_complete and not self._is_partly_sent else self.abort()

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer if self.has_head else self._buffer[:_HEAD_READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        if self.is_complete:  # nothing was asked
            self.abort()
            return
        self._framing_bytes += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(httpx2.RemoteProtocolError("not an HTTP response"))
        if not self.is_complete and self._framing_bytes > _HEAD_BYTES_MAX:
            self._fail(httpx2.RemoteProtocolError("the head or the trailers are too long"))
        if self.has_head and not self.is_complete and (not self._is_read or self._bytes_ahead >= BUFFER_BYTES):
            self._pause()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closed = True
        self._parser = httptools.HttpResponseParser(None)  # the last one and its connection hold each other
        if not self.is_complete and self._failure is None:
            ends_here = (
                self.has_head
                and exc is None
                and {b"content-length", b"transfer-encoding"}.isdisjoint(name.lower() for name, _ in self.headers)
            )
            self.is_complete = ends_here
            if not ends_here:
                error = httpx2.RemoteProtocolError if exc is None else httpx2.ReadError
                self._failure = error("the connection ended before the response did")
        self._wake()

    def on_message_begin(self) -> None:
        if self.is_complete:
            self._may_be_kept = False  # there is more than the response

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # else it is a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= _FIRST_FINAL_STATUS:
            self.has_head = True
        elif self.status != _SWITCHING_PROTOCOLS:
            self.headers = []

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._bytes_ahead += len(body)
        self._framing_bytes = 0

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_complete, self._idle_since = True, self._loop.time()
            self._may_be_kept = self._asks_to_keep and self._parser.should_keep_alive()

    def _time_out(self) -> None:
        self._fail(httpx2.ReadTimeout("the response fell silent"))

    def _fail(self, failure: httpx2.TransportError) -> None:
        self._failure = self._failure or failure
        self.abort()

    def _pause(self) -> None:
        if not self._is_paused:
            self._transport.pause_reading()
            self._is_paused = True

    def _resume(self) -> None:
        if self._is_paused:
            self._transport.resume_reading()
            self._is_paused = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, connection: _Connection, seconds: float | None) -> None:
        self._connection = connection
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            chunk = self._connection.take()
            if chunk is not None:
                yield chunk
            elif self._connection.is_complete:
                return
            else:
                await self._connection.wait(self._seconds)

    async def aclose(self) -> None:
        self._connection.end_response()


def _origin(request: httpx2.Request) -> Origin:
    """Where a connection leads, and the name whose certificate it was shown."""
    url = request.url
    return url.scheme, url.host, url.port, request.extensions.get("sni_hostname")


def _head(request: httpx2.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    if any(_CONTROL.search(line) for line in lines):
        raise httpx2.LocalProtocolError("a header with a control character", request=request)
    return b"\r\n".join([*lines, b"", b""])
