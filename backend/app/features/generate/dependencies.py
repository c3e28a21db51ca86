"""The image that a path and its query name, as a dependency of routes."""

from typing import Annotated, Any

from fastapi import Depends, Request

from app.core.errors import Invalid
from app.features.dependencies import CurrentGenerations
from app.generations import serve
from app.generations.thumbnails import WIDTHS

_WIDTHS = {str(each): each for each in WIDTHS}

WIDTH: dict[str, Any] = {
    "name": "width",
    "in": "query",
    "description": (
        "Show a smaller copy, so many pixels wide; the image itself where it is no wider. "
        "The extension may then also be `webp`."
    ),
    "schema": {"type": "integer", "enum": list(WIDTHS)},
}
"""The parameter `width`, for OpenAPI."""


def _width(request: Request) -> int | None:
    sent = request.query_params.getlist("width")
    if not sent:
        return None
    if len(sent) > 1 or sent[0] not in _WIDTHS:
        sentence = f"Must be one of {', '.join(_WIDTHS)}, and be there once"
        raise Invalid([{"parameter": "width", "detail": sentence}])
    return _WIDTHS[sent[0]]


async def _requested(
    width: Annotated[int | None, Depends(_width)], generations: CurrentGenerations, generation_id: str, extension: str
) -> serve.ServedImage:
    return await serve.find_image(generations, generation_id=generation_id, image_format=extension, width=width)


RequestedImage = Annotated[serve.ServedImage, Depends(_requested)]
"""The image that may be looked at. Raises Invalid for another width, and ImageNotFound for any other path."""
