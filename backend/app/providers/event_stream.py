"""Server-sent events in a provider's response, read as they arrive and within the bounds of other responses."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import httpx2

from app.core.logs import logger
from app.providers.response_memory import Share

BLOCK_BYTES = 1024 * 1024  # more than a transport has ahead

TakeEvent = Callable[[httpx2.ServerSentEvent], Awaitable[bytes | None]]
"""Takes one event. Returns the response's body once that has arrived."""

_EVENTS = "text/event-stream"
_LARGE_EVENTS_MAX = 4  # three sketches and the image


class ResponseTooLarge(Exception):
    """A response exceeds `bytes_max`."""


def is_event_stream(headers: httpx2.Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == _EVENTS


async def read_events(received: httpx2.Response, share: Share, *, bytes_max: int, take: TakeEvent) -> bytes:
    """The first body that `take` returns; what comes after it is not read. `share` grows with the largest event.

    Raises RemoteProtocolError where the stream ends before that, and ResponseTooLarge for more than `bytes_max` in one
    event or four times as much in all.
    """
    stream = _Measured(received, share, bytes_max * _LARGE_EVENTS_MAX)
    response = httpx2.Response(
        received.status_code, headers={"Content-Type": _EVENTS}, stream=stream, request=httpx2.Request("POST", "")
    )
    source = aiter(httpx2.EventSource(response, max_event_size=bytes_max))
    try:
        async with aclosing(cast("AsyncGenerator[httpx2.ServerSentEvent, None]", source)) as events:
            async for event in events:
                stream.event_bytes = 0
                body = await take(event)
                if body is not None:
                    return body
    except (httpx2.SSEError, ResponseTooLarge):
        logger.error("provider_answer_too_large", status=received.status_code, media_type=_EVENTS)
        raise ResponseTooLarge from None
    raise httpx2.RemoteProtocolError("the stream ended before the image")


class _Measured(httpx2.AsyncByteStream):
    """The bytes of a stream, at most `bytes_max`, and the end of its last event, which some servers leave out."""

    def __init__(self, received: httpx2.Response, share: Share, bytes_max: int) -> None:
        self.event_bytes = 0
        """What has arrived since the last event."""
        self._received = received
        self._share = share
        self._bytes_left = bytes_max

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._received.aiter_raw():
            self._bytes_left -= len(chunk)
            self.event_bytes += len(chunk)
            if self.event_bytes > self._share.bytes:
                await self._share.grow(BLOCK_BYTES)
            if self._bytes_left < 0:
                raise ResponseTooLarge
            yield chunk
        yield b"\n\n"
