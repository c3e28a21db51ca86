"""The images that go into a generation of the playground: what its models take, and what its form sends."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import Request

from app.catalogue.model import Model
from app.console.dependencies import find_session
from app.core.blobs import Blob
from app.core.bounds import BODY_BYTES_MAX
from app.core.errors import InvalidRequest
from app.web.form import read_form
from app.web.headers import header_values
from app.web.multipart import read_multipart

IMAGES, MASK = "images", "mask"
"""The fields of the form that take files. The first takes as many as there are, and ids of the account's images too."""


class Takes(NamedTuple):
    """What goes into a generation besides its prompt: so many images at most, and whether a mask."""

    images: int
    mask: bool


def takes_of(models: Sequence[Model]) -> Takes:
    """What any of the models takes."""
    routes = [route for model in models for route in model.routes if route.references_max]
    most = max((route.references_max for route in routes), default=0)
    return Takes(most, mask=any("mask" in route.capabilities for route in routes))


async def read_form_with_images(request: Request) -> Mapping[str, Any]:
    """The form's fields as `read_form` reads them, or in multipart/form-data: then `images` are the files and ids that
    were sent under this name, in order, and `mask` is a file. A file input without a file counts as not sent.

    Raises InvalidToken before it reads more than a text from a browser that is not logged in, and InvalidRequest for a
    file in any other field.
    """
    media_type = "".join(header_values(request, b"content-type")).lower()
    if not media_type.startswith("multipart/form-data"):
        fields = await read_form(request)
        return {**fields, IMAGES: [fields[IMAGES]]} if IMAGES in fields else fields
    if not _is_text(request):
        _ = (await find_session(request)).user
    values: dict[str, Any] = {IMAGES: []}
    for name, value in await read_multipart(request):
        if name in {IMAGES, MASK} and (value.size == 0 if isinstance(value, Blob) else not value):
            continue  # a file input without a file
        if name == IMAGES:
            values[IMAGES].append(value)
        elif name in values:
            raise InvalidRequest("The form has the same field twice")
        elif name == MASK:
            values[MASK] = value
        elif isinstance(value, str):
            values[name] = value.replace("\r\n", "\n")
        else:
            raise InvalidRequest("The form has a file in a field of text")
    return values


def _is_text(request: Request) -> bool:
    """Whether the body is as small as that of a form without files."""
    length = "".join(header_values(request, b"content-length"))
    return length.isdigit() and int(length) <= BODY_BYTES_MAX
