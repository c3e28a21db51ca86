"""Generations and their pictures over HTTP."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from app.core.db import Session
from app.core.errors import ConcurrencyLimited, Invalid, RateLimited
from app.core.images import MEDIA_TYPES
from app.core.web.body import JSONBody, json_body
from app.core.web.immutable import RangeNotSatisfiable, immutable
from app.core.web.lean import LeanJSON, LeanRoute
from app.core.web.openapi import BODY_PROBLEMS, operation_id, problems
from app.core.web.pages import PageQuery, one_page
from app.features.generate import service
from app.features.generate.dependencies import (
    IDEMPOTENCY_KEY,
    CurrentStudio,
    DeliveredGeneration,
    WithinLimits,
    read_idempotency_key,
    tell_replay,
)
from app.features.generate.pictures import ImageNotFound, find_elsewhere, open_part
from app.features.generate.schemas import GenerationCreate, GenerationListed, GenerationPublic
from app.features.keys.dependencies import Caller, bearer, recall_caller
from app.features.keys.service import InvalidApiKey
from app.features.usage.ledger.entries import IdempotencyKeyInUse, IdempotencyKeyReused, OutcomeUnknown
from app.providers import PROVIDER_PROBLEMS

_IMAGES: dict[str, dict[str, str]] = {each: {} for each in MEDIA_TYPES.values()}

router = APIRouter(prefix="/v1", tags=["Generate"])
lean = APIRouter(prefix="/v1", tags=["Generate"], route_class=LeanRoute, generate_unique_id_function=operation_id)


@lean.post(
    "/generate",
    response_model=GenerationPublic,
    dependencies=[Depends(bearer), json_body(GenerationCreate)],
    responses=problems(
        InvalidApiKey,
        RateLimited,
        ConcurrencyLimited,
        IdempotencyKeyReused,
        IdempotencyKeyInUse,
        service.ImageDeleted,
        OutcomeUnknown,
        *PROVIDER_PROBLEMS,
        *BODY_PROBLEMS,
    ),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def generate(request: Request) -> LeanJSON:
    """Make a picture from a prompt.

    `size` is honoured exactly or refused. A 200 is recorded and counted before it is sent. With an `Idempotency-Key` a
    retry within a day gets the same picture again, which is not counted twice.
    """
    idempotency_key = read_idempotency_key(request)
    caller = await recall_caller(request)
    async with WithinLimits(request, caller):
        order = await _ORDER(request)
        delivered = await service.generate(
            request.app.state.studio,
            caller=caller,
            wish=order.wish,
            route="/v1/generate",
            idempotency_key=idempotency_key,
        )
    tell_replay(request, delivered)
    return LeanJSON(GenerationPublic.write(delivered))


_ORDER = JSONBody(GenerationCreate)


@router.get("/generations", responses=problems(InvalidApiKey, RateLimited, Invalid))
async def list_generations(
    request: Request, caller: Caller, query: Annotated[PageQuery, Query()], studio: CurrentStudio, session: Session
) -> list[GenerationListed]:
    """List what the key's account generated in the key's environment, newest first."""
    generations = await service.find_all(
        studio,
        session,
        user_id=caller.user_id,
        environment=caller.environment,
        after=query.after,
        limit=query.limit + 1,
    )
    return [GenerationListed.model_validate(each) for each in one_page(request, generations, query=query)]


@router.get("/generations/{generation_id}", responses=problems(InvalidApiKey, RateLimited, service.GenerationNotFound))
async def get_generation(
    caller: Caller, generation_id: str, studio: CurrentStudio, session: Session
) -> GenerationListed:
    """Show one generation of the key's account and environment."""
    return GenerationListed.model_validate(
        await service.find_one(studio, session, caller=caller, generation_id=generation_id)
    )


@router.delete(
    "/generations/{generation_id}",
    status_code=204,
    responses=problems(InvalidApiKey, RateLimited, service.GenerationNotFound),
)
async def delete_generation(caller: Caller, generation_id: str, studio: CurrentStudio) -> None:
    """Delete a picture for good. That it was delivered stays counted."""
    await service.delete_picture(studio, caller=caller, generation_id=generation_id)


@router.head("/images/{generation_id}.{extension}", include_in_schema=False)
@router.get(
    "/images/{generation_id}.{extension}",
    response_class=Response,
    responses={
        200: {"content": _IMAGES, "description": "The picture, the same bytes every time."},
        206: {"content": _IMAGES, "description": "The part of it that `Range` asks for."},
        304: {"description": "The caller has it already."},
        307: {"description": "It is to be had from the store itself, for a while."},
        **problems(ImageNotFound, RangeNotSatisfiable),
    },
)
async def show_image(request: Request, generation: DeliveredGeneration, studio: CurrentStudio) -> Response:
    """Show a picture. It needs no key: whoever has the URL may look."""
    return await immutable(
        request,
        etag=generation.id,
        open_part=partial(open_part, studio, generation),
        find_elsewhere=partial(find_elsewhere, studio, generation),
    )
