"""Answers that never change: cached for ever, and not made again for whoever has them."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from fastapi import Request, Response

CACHE_CONTROL = "private, max-age=31536000, immutable"


class Content(Protocol):
    """Bytes and what they are."""

    @property
    def content(self) -> bytes: ...

    @property
    def media_type(self) -> str: ...


async def immutable(request: Request, *, etag: str, content: Callable[[], Awaitable[Content]]) -> Response:
    """304 to a caller that has it already, before anything is made; else the content, to be kept for ever."""
    headers = {"ETag": f'"{etag}"', "Cache-Control": CACHE_CONTROL}
    if _has(request, f'"{etag}"'):
        return Response(status_code=304, headers=headers)
    made = await content()
    return Response(made.content, media_type=made.media_type, headers=headers)


def _has(request: Request, etag: str) -> bool:
    sent = ",".join(request.headers.getlist("if-none-match"))
    return any(each.strip().removeprefix("W/") in {etag, "*"} for each in sent.split(","))
