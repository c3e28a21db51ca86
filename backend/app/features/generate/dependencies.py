"""What requests name: generations by their status, an image by its path and query, and images that go in."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated, Any, get_args

from fastapi import Depends, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.core.errors import Invalid
from app.core.schemas import QueryInt
from app.features.dependencies import CurrentGenerations, generations_with_urls_of
from app.features.generate.schemas import GenerationCreate
from app.features.input_images import read_sent_image
from app.features.preferences import WAIT_SECONDS_MAX
from app.generations import serve
from app.generations.spec import GenerationSpec
from app.generations.thumbnails import WIDTHS
from app.models import GenerationStatus
from app.web.pagination import PageQuery

_STATUSES: Sequence[GenerationStatus] = get_args(GenerationStatus)
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


def _statuses(text: str) -> str:
    if not set(text.split(",")) <= set(_STATUSES):
        raise ValueError(f"must be some of {', '.join(_STATUSES)}, with commas between")
    return text


class GenerationsQuery(PageQuery):
    """Which part of the list, and of which statuses."""

    status: Annotated[str, AfterValidator(_statuses)] = Field(
        default="delivered",
        description=f"Some of {', '.join(f'`{each}`' for each in _STATUSES)}, with commas between.",
        examples=["queued,processing"],
    )

    @property
    def statuses(self) -> Collection[GenerationStatus]:
        return [each for each in _STATUSES if each in self.status.split(",")]


class WaitQuery(BaseModel):
    """How long to wait for a change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    wait: Annotated[QueryInt, Field(ge=1, le=WAIT_SECONDS_MAX)] | None = Field(
        default=None, description="Seconds to wait for a change of its status."
    )


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
