"""Responses with content that never changes: cached for ever, sent in parts on request, or redirected to another server
that has it.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.core.errors import ApiError
from app.core.images import CACHE_CONTROL

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


class Part(Protocol):
    """The bytes from `start` up to and not including `end`, of content of `size` bytes."""

    @property
    def size(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def chunks(self) -> AsyncIterator[bytes]: ...


OpenPart = Callable[[int, int | None], Awaitable[Part]]
"""Opens the bytes from the first number up to and not including the second, or up to the end for None."""

FindSize = Callable[[], Awaitable[int | None]]
"""The size of the whole content in bytes; None where it is known only once the content has been made."""


@dataclass(frozen=True, slots=True)
class RedirectTarget:
    """A URL that serves the same content by GET, for `seconds` from now."""

    url: str
    seconds: int


FindRedirectTarget = Callable[[], Awaitable[RedirectTarget | None]]
"""Finds the URL to redirect to; None if this server is to send the content."""


async def immutable_response(
    request: Request,
    *,
    etag: str,
    media_type: str,
    find_size: FindSize,
    open_part: OpenPart,
    redirect_target: FindRedirectTarget | None = None,
) -> Response:
    """The response to a GET or HEAD of content that never changes. A 304 for a client that has it, before anything is
    opened; for GET a redirect, where there is a target; else the whole content, or the one range that was asked for.

    For HEAD nothing is opened: it ignores `Range` (RFC 9110, 14.2), and has no `Content-Length` where the size is not
    known (8.6). A range opens the content, whatever becomes of it: `Content-Range` of a 416 needs the size (14.4).

    Raises RangeNotSatisfiable for a range that begins behind the end. Several ranges, or a malformed one, are ignored.
    """
    headers = {"ETag": f'"{etag}"', "Cache-Control": CACHE_CONTROL, "Accept-Ranges": "bytes"}
    if _client_has(request, f'"{etag}"'):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return _head(await find_size(), headers, media_type)
    target = await redirect_target() if redirect_target else None
    if target is not None:
        return _redirect(target)
    wanted = _wanted_range(request, f'"{etag}"')
    if wanted is None:
        part, status = await open_part(0, None), 200
    else:
        part, status = await _open_range(wanted, open_part), 206
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{part.size}"
    headers["Content-Length"] = str(part.end - part.start)
    return StreamingResponse(part.chunks, status_code=status, headers=headers, media_type=media_type)


def _head(size: int | None, headers: Mapping[str, str], media_type: str) -> Response:
    response = Response(headers=headers, media_type=media_type)
    if size is None:
        del response.headers["Content-Length"]
    else:
        response.headers["Content-Length"] = str(size)
    return response


def _redirect(target: RedirectTarget) -> Response:
    """A cache may keep it for half of the URL's life. It has no ETag: after a 304 a cache would take a redirect to an
    expired URL for fresh.
    """
    headers = {"Location": target.url, "Cache-Control": f"private, max-age={target.seconds // 2}"}
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


def _client_has(request: Request, etag: str) -> bool:
    sent = ",".join(request.headers.getlist("if-none-match"))
    return any(each.strip().removeprefix("W/") in {etag, "*"} for each in sent.split(","))
