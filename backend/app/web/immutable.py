"""Answers that never change: cached for ever, not made again for whoever has them, and given in parts to who asks; or
to be had elsewhere, for a while.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.core.errors import ApiError

CACHE_CONTROL = "private, max-age=31536000, immutable"

_RANGE = re.compile(r"bytes=(?:(?P<first>[0-9]{1,15})-(?P<last>[0-9]{1,15})?|-(?P<suffix>[0-9]{1,15}))", re.ASCII)


class RangeNotSatisfiable(ApiError):
    status, title, code = 416, "Range Not Satisfiable", "range_not_satisfiable"
    detail = "The range begins behind the end"

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Content-Range": f"bytes */{self._size}"}


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` up to and not including `end` of something that has `size`."""

    media_type: str
    size: int
    start: int
    end: int
    chunks: AsyncIterator[bytes]


def part_of(content: bytes, media_type: str, start: int, end: int | None) -> Part:
    """The part of something that is at hand as a whole."""
    first, behind = min(start, len(content)), len(content) if end is None else min(end, len(content))
    return Part(media_type, len(content), first, behind, _at_once(content[first:behind]))


async def _at_once(content: bytes) -> AsyncIterator[bytes]:
    yield content


OpenPart = Callable[[int, int | None], Awaitable[Part]]
"""Opens the bytes from the first number up to and not including the second, or to the end."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where the same is to be had by GET, for so many seconds."""

    url: str
    seconds: int


FindElsewhere = Callable[[], Awaitable[Elsewhere | None]]


async def immutable(
    request: Request, *, etag: str, open_part: OpenPart, find_elsewhere: FindElsewhere | None = None
) -> Response:
    """304 to a caller that has it already, before anything is opened; a redirect where it is to be had elsewhere; else
    all of it, or the one range asked for. HEAD is always answered here.

    Raises RangeNotSatisfiable for a range that begins behind the end. Several ranges, or a malformed one, get all.
    """
    headers = {"ETag": f'"{etag}"', "Cache-Control": CACHE_CONTROL, "Accept-Ranges": "bytes"}
    if _has(request, f'"{etag}"'):
        return Response(status_code=304, headers=headers)
    elsewhere = await find_elsewhere() if find_elsewhere and request.method == "GET" else None
    if elsewhere is not None:
        return _redirect(elsewhere)
    wanted = _wanted_range(request, f'"{etag}"')
    if wanted is None:
        part, status = await open_part(0, None), 200
    else:
        part, status = await _open_range(wanted, open_part), 206
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{part.size}"
    headers["Content-Length"] = str(part.end - part.start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=part.media_type)
    return StreamingResponse(part.chunks, status_code=status, headers=headers, media_type=part.media_type)


def _redirect(elsewhere: Elsewhere) -> Response:
    """A cache forgets it when the address has half of its life before it. It has no ETag: with a 304 for an answer a
    cache would take an address that has expired for a fresh one.
    """
    headers = {"Location": elsewhere.url, "Cache-Control": f"private, max-age={elsewhere.seconds // 2}"}
    return Response(status_code=307, headers=headers)


async def _open_range(wanted: re.Match[str], open_part: OpenPart) -> Part:
    if wanted["suffix"] is None:
        last = wanted["last"]
        part = await open_part(int(wanted["first"]), None if last is None else int(last) + 1)
    else:
        size = (await open_part(0, 0)).size
        part = await open_part(max(0, size - int(wanted["suffix"])), None)
    if part.start >= part.size:
        raise RangeNotSatisfiable(part.size)
    return part


def _wanted_range(request: Request, etag: str) -> re.Match[str] | None:
    sent = request.headers.getlist("range")
    if len(sent) != 1 or request.headers.get("if-range", etag) != etag:
        return None
    match = _RANGE.fullmatch(sent[0].replace(" ", ""))
    if match is None or (match["last"] is not None and int(match["last"]) < int(match["first"])):
        return None
    return None if match["suffix"] is not None and int(match["suffix"]) == 0 else match


def _has(request: Request, etag: str) -> bool:
    sent = ",".join(request.headers.getlist("if-none-match"))
    return any(each.strip().removeprefix("W/") in {etag, "*"} for each in sent.split(","))
