"""What the routes of uploads depend on: a caller within the limit of uploads, and the file that was sent."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from app.core.blobs import Blob
from app.core.errors import Invalid, UnsupportedMedia
from app.features.dependencies import services_of
from app.features.keys.dependencies import bearer, fetch_caller, name_caller
from app.features.rate_limits import raise_if_refused, set_rate_limit_headers
from app.features.uploads.schemas import UploadQuery
from app.generations.spec import Caller
from app.ratelimit import Take
from app.web.body import read_blob
from app.web.headers import header_values
from app.web.multipart import read_multipart
from app.web.query import query_of

FILE: dict[str, Any] = {
    "required": True,
    "content": {
        **{
            each: {"schema": {"type": "string", "format": "binary"}} for each in ("image/*", "application/octet-stream")
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": False,
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
    },
}
"""The body of an upload, for OpenAPI."""

_FORM = "multipart/form-data"


@dataclass(frozen=True)
class SentFile:
    """The bytes of a body or of the file in a form, where errors of it point to, and whether of an animation the first
    frame is taken.
    """

    content: Blob
    pointer: str
    first_frame: bool


async def _uploader(request: Request, _documented: Annotated[object, Depends(bearer)]) -> Caller:
    caller = await fetch_caller(request)  # without a connection while the body comes
    name_caller(request, caller)
    services = services_of(request)
    take = Take("upload", caller.account_id, services.policies.upload_per_account)
    taken = await services.limiter.take([take], group=caller.account_id)
    set_rate_limit_headers(request, taken.decisions)
    raise_if_refused(request, taken)
    return caller


Uploader = Annotated[Caller, Depends(_uploader)]
"""The caller of an active API key, whose account may upload another image now. Raises RateLimited."""


async def _sent_file(request: Request, query: Annotated[UploadQuery, query_of(UploadQuery)]) -> SentFile:
    media_type = "".join(header_values(request, b"content-type")).partition(";")[0].strip().lower()
    if media_type == _FORM:
        match await read_multipart(request):
            case [("file", Blob() as content)]:
                return SentFile(content, "#/file", query.first_frame)
            case _:
                raise Invalid([{"pointer": "#/file", "detail": "The form must hold one file, with the name file"}])
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return SentFile(await read_blob(request), "#", query.first_frame)
    raise UnsupportedMedia(f"Send the image as Content-Type: image/..., application/octet-stream or {_FORM}")


Sent = Annotated[SentFile, Depends(_sent_file)]
"""Raises what refuses the body."""
