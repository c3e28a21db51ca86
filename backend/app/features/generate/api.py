"""Generations and their images over HTTP."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.core.errors import Invalid, RateLimited
from app.core.images import MEDIA_TYPES
from app.features.admission import GENERATION_PROBLEMS, IDEMPOTENCY_KEY, admit
from app.features.dependencies import CurrentGenerations, Session
from app.features.generate.dependencies import WIDTH, RequestedImage, spec_with_images
from app.features.generate.schemas import GenerationCreate, GenerationListed, GenerationPublic
from app.features.keys.dependencies import Caller, bearer
from app.generations import records, serve
from app.generations.collaborators import Generations
from app.generations.errors import (
    GenerationNotFound,
    ImageNotFound,
    InvalidApiKey,
)
from app.web.body import JSONBody, json_body
from app.web.client_address import origin_of
from app.web.fast_route import FastRoute, JSONBytes
from app.web.immutable import RangeNotSatisfiable, RedirectTarget, immutable_response
from app.web.openapi import operation_id, problems
from app.web.pagination import PageQuery, one_page
from app.web.query import query_of

_IMAGES: dict[str, dict[str, str]] = {media_type: {} for media_type in MEDIA_TYPES.values()}

router = APIRouter(prefix="/v1", tags=["Generate"])
fast_router = APIRouter(
    prefix="/v1", tags=["Generate"], route_class=FastRoute, generate_unique_id_function=operation_id
)


@fast_router.post(
    "/generate",
    response_model=GenerationPublic,
    dependencies=[Depends(bearer), json_body(GenerationCreate)],
    responses=problems(*GENERATION_PROBLEMS),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def generate(request: Request) -> JSONBytes:
    """Make a picture from a prompt.

    `model` is one that `GET /v1/models` lists. With `images` it is made from them: changed, or drawn after them.

    `size` is honoured exactly or refused. A 200 is recorded and counted before it is sent. With an `Idempotency-Key` a
    retry within a day gets the same picture again, which is not counted twice.
    """
    async with await admit(request) as admission:
        sent = await _read_body(request)
        spec = sent.spec if sent.images is None else await spec_with_images(request, sent)
        delivered = await admission.generate(spec, route="/v1/generate")
    return JSONBytes(GenerationPublic.write(delivered, currency=admission.currency))


_read_body = JSONBody(GenerationCreate)


@router.get("/generations", responses=problems(InvalidApiKey, RateLimited, Invalid))
async def list_generations(
    request: Request,
    caller: Caller,
    query: Annotated[PageQuery, query_of(PageQuery)],
    generations: CurrentGenerations,
    session: Session,
) -> list[GenerationListed]:
    """List what the key's account generated in the key's environment, newest first."""
    found = await records.find_all(
        generations,
        session,
        account_id=caller.account_id,
        environments=[caller.environment],
        before_id=query.after.id if query.after else None,
        limit=query.limit + 1,
    )
    return [GenerationListed.model_validate(each) for each in one_page(request, found, query=query)]


@router.get("/generations/{generation_id}", responses=problems(InvalidApiKey, RateLimited, GenerationNotFound))
async def get_generation(
    caller: Caller, generation_id: str, generations: CurrentGenerations, session: Session
) -> GenerationListed:
    """Show one generation of the key's account and environment."""
    return GenerationListed.model_validate(
        await records.find_one(generations, session, caller=caller, generation_id=generation_id)
    )


@router.delete(
    "/generations/{generation_id}",
    status_code=204,
    responses=problems(InvalidApiKey, RateLimited, GenerationNotFound),
)
async def delete_generation(caller: Caller, generation_id: str, generations: CurrentGenerations) -> None:
    """Delete a picture for good. That it was delivered stays counted."""
    await records.delete_image(generations, caller=caller, generation_id=generation_id)


@router.head("/images/{generation_id}.{extension}", include_in_schema=False)
@router.get(
    "/images/{generation_id}.{extension}",
    response_class=Response,
    responses={
        200: {"content": _IMAGES, "description": "The picture, the same bytes every time."},
        206: {"content": _IMAGES, "description": "The part of it that `Range` asks for."},
        304: {"description": "The caller has it already."},
        307: {"description": "It is to be had from the store itself, for a while."},
        **problems(ImageNotFound, RangeNotSatisfiable, Invalid),
    },
    openapi_extra={"parameters": [WIDTH]},
)
async def show_image(request: Request, image: RequestedImage, generations: CurrentGenerations) -> Response:
    """Show a picture, or a smaller copy of it. It needs no key: whoever has the URL may look."""
    group = origin_of(request).host  # an address that asks for many images at once waits behind its own
    return await immutable_response(
        request,
        etag=image.etag,
        media_type=MEDIA_TYPES[image.format],
        find_size=partial(serve.find_size, generations, image),
        open_part=partial(serve.open_image, generations, image, group=group),
        redirect_target=partial(_redirect_target, generations, image, group),
    )


async def _redirect_target(generations: Generations, image: serve.ServedImage, group: str) -> RedirectTarget | None:
    presigned = await serve.presigned_url(generations, image, group=group)
    return None if presigned is None else RedirectTarget(presigned.url, presigned.seconds)
