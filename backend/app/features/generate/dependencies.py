"""What requests name: an image by its path and query, as a dependency of routes; and images that go in."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Request

from app.core.errors import Invalid
from app.features.dependencies import CurrentGenerations, generations_with_urls_of
from app.features.generate.schemas import GenerationCreate
from app.features.input_images import read_sent_image
from app.generations import serve
from app.generations.spec import GenerationSpec
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


async def spec_with_images(request: Request, sent: GenerationCreate) -> GenerationSpec:
    """The request with the images that it names. Raises what `read_sent_image` raises."""
    generations = generations_with_urls_of(request)
    images = [
        await read_sent_image(generations, text, pointer=f"#/images/{place}")
        for place, text in enumerate(sent.images or ())
    ]
    mask = None if sent.mask is None else await read_sent_image(generations, sent.mask, pointer="#/mask")
    return replace(sent.spec, images=images, mask=mask, first_frame=sent.first_frame)


async def _requested(
    width: Annotated[int | None, Depends(_width)], generations: CurrentGenerations, generation_id: str, extension: str
) -> serve.ServedImage:
    return await serve.find_image(generations, generation_id=generation_id, image_format=extension, width=width)


RequestedImage = Annotated[serve.ServedImage, Depends(_requested)]
"""The image that may be looked at. Raises Invalid for another width, and ImageNotFound for any other path."""
