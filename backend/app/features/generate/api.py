"""Generations and their pictures over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from app.core.errors import RateLimited
from app.core.web.body import json_body
from app.core.web.immutable import immutable
from app.core.web.openapi import BODY_PROBLEMS, problems
from app.features.generate import service
from app.features.generate.dependencies import CurrentStudio, DeliveredGeneration, LimitedCaller
from app.features.generate.schemas import GenerationCreate, GenerationPublic
from app.features.keys.service import InvalidApiKey

router = APIRouter(prefix="/v1", tags=["Generate"])


@router.post("/generate", responses=problems(InvalidApiKey, RateLimited, *BODY_PROBLEMS))
async def generate(
    caller: LimitedCaller,
    order: Annotated[GenerationCreate, json_body(GenerationCreate)],
    studio: CurrentStudio,
) -> GenerationPublic:
    """Make a picture from a prompt.

    `size` is honoured exactly or refused. A 200 is recorded and counted before it is sent.
    """
    return GenerationPublic.model_validate(
        await service.generate(studio, caller=caller, prompt=order.prompt, size=order.pixels)
    )


@router.head("/images/{generation_id}.png", include_in_schema=False)
@router.get(
    "/images/{generation_id}.png",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}, "description": "The picture, the same bytes every time."},
        304: {"description": "The caller has it already."},
        **problems(service.ImageNotFound),
    },
)
async def show_image(request: Request, generation: DeliveredGeneration, studio: CurrentStudio) -> Response:
    """Show a picture. It needs no key: whoever has the URL may look."""
    return await immutable(request, etag=generation.id, content=lambda: service.draw(studio, generation))
