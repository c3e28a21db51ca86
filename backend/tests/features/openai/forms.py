"""Forms as clients of `images.edit` send them."""

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import NamedTuple

import httpx2
from PIL import Image
from tests.harness import Key

EDITS = "/v1/images/edits"
BOUNDARY = "a-boundary"


class Part(NamedTuple):
    """A part of a form: a text, or a file, with the name and the type that its client gives it."""

    name: str
    content: str | bytes
    filename: str | None = None
    media_type: str | None = None


def file(name: str, content: bytes, filename: str = "in.png", media_type: str = "image/png") -> Part:
    return Part(name, content, filename, media_type)


@cache
def picture(number: int = 0, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A small image, different for each number."""
    encoded = BytesIO()
    Image.new(mode, (96, 64), (number * 13 % 256, 99, 9, 0)[: len(mode)]).save(encoded, kind)
    return encoded.getvalue()


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def form(parts: Sequence[Part]) -> bytes:
    """The body of the form, its parts in this order."""
    body = b""
    for each in parts:
        content = each.content if isinstance(each.content, bytes) else each.content.encode()
        named = f'form-data; name="{each.name}"' + (f'; filename="{each.filename}"' if each.filename else "")
        typed = f"\r\nContent-Type: {each.media_type}" if each.media_type else ""
        body += f"--{BOUNDARY}\r\nContent-Disposition: {named}{typed}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


async def post_form(
    client: httpx2.AsyncClient,
    key: Key,
    parts: Sequence[Part],
    *,
    is_chunked: bool = False,
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:
    """Posts the form to the route of edits."""
    body = form(parts)

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    typed = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **key.headers, **(headers or {})}
    return await client.post(EDITS, content=in_pieces() if is_chunked else body, headers=typed)


async def upload(client: httpx2.AsyncClient, key: Key) -> str:
    """The id of a new upload."""
    headers = {**key.headers, "Content-Type": "image/png"}
    uploaded = await client.post("/v1/uploads", content=picture(), headers=headers)
    assert uploaded.status_code == 201, uploaded.text
    return str(uploaded.json()["id"])
