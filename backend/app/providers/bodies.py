"""Bodies of requests that carry images: made from images as they are written, so that there is no second copy of them.

A body can be iterated over again, for a call that is repeated, and is then the same.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex

import httpx2
import pybase64

from app.core.blobs import Blob
from app.core.images import MEDIA_TYPES
from app.providers import InputImage

_PIECE_BYTES = 3 * 64 * 1024  # whole groups of base64


@dataclass(frozen=True)
class Base64:
    """An image in base64."""

    blob: Blob

    @property
    def size(self) -> int:
        return (self.blob.size + 2) // 3 * 4


Part = bytes | Blob | Base64


@dataclass(frozen=True)
class Body:
    """Its parts one after another. While it is iterated over, a piece of one image is read at a time."""

    media_type: str
    parts: Sequence[Part]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(len(part) if isinstance(part, bytes) else part.size for part in self.parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
                continue
            blob, encode = (part.blob, pybase64.b64encode) if isinstance(part, Base64) else (part, bytes)
            async for piece in blob.chunks(_PIECE_BYTES):
                yield encode(piece)

    def request(self, url: httpx2.URL, headers: Mapping[str, str]) -> httpx2.Request:
        """A POST of this body."""
        about = {"Content-Type": self.media_type, "Content-Length": str(self.size)}
        return httpx2.Request("POST", url, headers={**headers, **about}, content=self)


def json_body(value: object) -> Body:
    """JSON, in which a Blob becomes its base64."""
    mark, blobs = token_hex(16), list[Blob]()

    def mark_blob(blob: Blob) -> str:
        blobs.append(blob)
        return mark

    first, *others = json.dumps(value, ensure_ascii=False, default=mark_blob).split(mark)
    parts: list[Part] = [first.encode()]
    for blob, text in zip(blobs, others, strict=True):
        parts += [Base64(blob), text.encode()]
    return Body("application/json", parts)


def multipart(fields: Mapping[str, object], files: Sequence[tuple[str, InputImage]]) -> Body:
    """The fields of a form, and files with their names in the form.

    The boundary between them is random, and chosen when all content is there: none can hold it.
    """
    boundary, parts = token_hex(16), list[Part]()
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        parts.append(_head(boundary, f'name="{name}"') + text.encode() + b"\r\n")
    for number, (name, image) in enumerate(files, 1):
        described = f'name="{name}"; filename="{name.removesuffix("[]")}-{number}.{image.format}"'
        parts += [_head(boundary, described, MEDIA_TYPES[image.format]), image.blob, b"\r\n"]
    return Body(f"multipart/form-data; boundary={boundary}", [*parts, f"--{boundary}--\r\n".encode()])


def _head(boundary: str, described: str, media_type: str | None = None) -> bytes:
    kind = f"Content-Type: {media_type}\r\n" if media_type else ""
    return f"--{boundary}\r\nContent-Disposition: form-data; {described}\r\n{kind}\r\n".encode()
