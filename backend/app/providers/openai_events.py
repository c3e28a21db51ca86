"""The events of an image that OpenAI streams: https://platform.openai.com/docs/api-reference/images-streaming."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import httpx2

from app.core.images import IMAGE_FORMATS, ImageFormat
from app.core.pool import BoundedPool
from app.providers import DrawRequest
from app.providers.encodings import from_base64
from app.providers.responses import AnyError, Lenient, Message, kind_of, parse
from app.providers.structure import check_whole

_FORMATS: Mapping[str, ImageFormat] = {each: each for each in IMAGE_FORMATS}


class ImageEvents:
    """Takes the events of one call. Gives the request its sketches, in order; one that is broken, or more than were
    asked for, are left out.
    """

    def __init__(self, request: DrawRequest, pool: BoundedPool) -> None:
        self._request = request
        self._pool = pool
        self._sketches = 0

    async def take(self, event: httpx2.ServerSentEvent) -> bytes | None:
        """The JSON of the image or of an error, which ends the response; None for any other event."""
        found = await self._pool.go_on(partial(_read, event))  # it is part of a call that the pool has a place for
        if isinstance(found, _Sketch):
            index, self._sketches = self._sketches, self._sketches + 1
            if found.image is not None and self._request.on_partial is not None and index < self._request.partials:
                self._request.on_partial(index, found.image)
            return None
        return found


@dataclass(frozen=True)
class _Sketch:
    image: bytes | None
    """None for one that is broken."""


class _Event(Message):
    type: Lenient[str] = None
    b64_json: Lenient[str] = None
    error: AnyError[Message] = None


def _read(event: httpx2.ServerSentEvent) -> _Sketch | bytes | None:
    """The name of an event is in its data, and often in its head too."""
    data = event.data.encode()
    parsed = parse(_Event, data) or _Event()
    kind = (parsed.type or event.event).rpartition(".")[2]
    if kind == "partial_image":
        return _Sketch(_whole_image(parsed.b64_json or ""))
    if parsed.error is not None or kind == "completed":
        return data
    return b'{"error":%s}' % data if kind == "error" else None


def _whole_image(text: str) -> bytes | None:
    content = from_base64(text) or b""
    image_format = _FORMATS.get(kind_of(content))
    if image_format is None:
        return None
    try:
        check_whole(content, image_format)
    except (ValueError, LookupError):
        return None
    return content
