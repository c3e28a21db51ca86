"""Generations and their images over HTTP."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.core.errors import Invalid, RateLimited
from app.core.images import MEDIA_TYPES
from app.features.admission import admit
from app.features.charged import charged
from app.features.dependencies import CurrentGenerations, Session, services_of
from app.features.generate.asynchronous import (
    ACCEPTED,
    accepted_response,
    find,
    find_changed,
    generate_asynchronously,
)
from app.features.generate.dependencies import WIDTH, GenerationsQuery, RequestedImage, WaitQuery, spec_with_images
from app.features.generate.events import LAST_EVENT_ID, events_response
from app.features.generate.schemas import GenerationCreate, GenerationListed, GenerationPublic, GenerationShown
from app.features.generation_problems import GENERATION_PROBLEMS
from app.features.idempotency import IDEMPOTENCY_KEY
from app.features.keys.dependencies import Caller, WaitingCaller, bearer
from app.features.preferences import PREFER, read_preference
from app.features.terms import read_terms
from app.features.watched import EVENT_STREAM
from app.generations import records, serve
from app.generations.collaborators import Generations
from app.generations.errors import (
    AcceptedBefore,
    GenerationNotEnded,
    GenerationNotFound,
    ImageNotFound,
    InvalidApiKey,
    NotCancellable,
    QueueFull,
)
from app.generations.failures import ASYNCHRONOUS_PROBLEMS
from app.generations.jobs.cancel import ensure_cancelled
from app.generations.spec import Delivered
from app.generations.uploads import UploadsFull
from app.web.body import JSONBody, json_body
from app.web.client_address import origin_of
from app.web.fast_route import FastRoute, JSONBytes, PreparedJSON
from app.web.immutable import RangeNotSatisfiable, RedirectTarget, immutable_response
from app.web.openapi import operation_id, problems
from app.web.pagination import one_page
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
    responses=charged({**ACCEPTED, **problems(QueueFull, UploadsFull, *GENERATION_PROBLEMS, *ASYNCHRONOUS_PROBLEMS)}),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
)
async def generate(request: Request) -> JSONBytes | Response:
    """Make an image from a prompt.

    `model` is one that `GET /v1/models` lists. With `images` it is made from them: changed, or drawn after them.

    `size` is honoured exactly or refused. A 200 is recorded and counted before it is sent. With an `Idempotency-Key` a
    retry within a day gets the same image again, which is not counted twice. With `Prefer: respond-async`, or with
    `async`, the answer is a 202 with the generation as `GET /v1/generations/{generation_id}` shows it.
    """
    async with await admit(request, preference=read_preference(request)) as admission:
        sent = await _read_body(request)
        terms = read_terms(sent, admission.preference)
        spec = sent.spec if sent.images is None else await spec_with_images(request, sent)
        try:
            if terms is None:
                made: Delivered | Response = await admission.generate(spec, route="/v1/generate")
            else:
                made = await generate_asynchronously(request, admission, spec, route="/v1/generate", terms=terms)
        except AcceptedBefore as before:
            made = await accepted_response(request, admission.caller, before.generation_id)
    return made if isinstance(made, Response) else JSONBytes(GenerationPublic.write(made, currency=admission.currency))


_read_body = JSONBody(GenerationCreate)


@router.get("/generations", responses=problems(InvalidApiKey, RateLimited, Invalid))
async def list_generations(
    request: Request,
    caller: Caller,
    query: Annotated[GenerationsQuery, query_of(GenerationsQuery)],
    generations: CurrentGenerations,
    session: Session,
) -> list[GenerationListed]:
    """List the images of the key's account in the key's environment, newest first: by default what was delivered."""
    found = await records.find_all(
        generations,
        session,
        account_id=caller.account_id,
        environments=[caller.environment],
        before_id=query.after.id if query.after else None,
        limit=query.limit + 1,
        statuses=query.statuses,
    )
    return [GenerationListed.model_validate(each) for each in one_page(request, found, query=query)]


@router.get(
    "/generations/{generation_id}",
    response_model=GenerationShown,
    responses=problems(InvalidApiKey, RateLimited, GenerationNotFound, Invalid),
)
async def get_generation(
    request: Request,
    caller: WaitingCaller,
    generation_id: str,
    query: Annotated[WaitQuery, query_of(WaitQuery)],
) -> Response:
    """Show one generation of the key's account and environment, whatever has become of it.

    With `wait`, the answer comes when its status changes, or after so many seconds.
    """
    if query.wait is None:
        found = await find(request, caller, generation_id)
    else:
        found = await find_changed(request, caller, generation_id, wait_seconds=query.wait)
    return PreparedJSON(GenerationShown.write(found), status=200, headers=())


@router.get(
    "/generations/{generation_id}/events",
    response_class=Response,
    responses={
        200: {"content": {EVENT_STREAM: {}}, "description": "An event for each status that it has from now on."},
        204: {"description": "It has ended, and the caller knows."},
        **problems(InvalidApiKey, RateLimited, GenerationNotFound),
    },
    openapi_extra={"parameters": [LAST_EVENT_ID]},
)
async def watch_generation(request: Request, caller: WaitingCaller, generation_id: str) -> Response:
    """Watch one generation: an event `status` with its present state, and one for each change until it has ended."""
    return events_response(request, caller, await find(request, caller, generation_id))


@router.post(
    "/generations/{generation_id}/cancel",
    responses=problems(InvalidApiKey, RateLimited, GenerationNotFound, NotCancellable),
)
async def cancel_generation(request: Request, caller: WaitingCaller, generation_id: str) -> GenerationShown:
    """Cancel an asynchronous request with all its images, as long as no provider was asked for any of them."""
    await ensure_cancelled(services_of(request).generations, await find(request, caller, generation_id))
    return GenerationShown.model_validate(await find(request, caller, generation_id))


@router.delete(
    "/generations/{generation_id}",
    status_code=204,
    responses=problems(InvalidApiKey, RateLimited, GenerationNotFound, GenerationNotEnded),
)
async def delete_generation(caller: WaitingCaller, generation_id: str, generations: CurrentGenerations) -> None:
    """Delete an image and its prompt for good, or the prompt alone of what was not delivered. What counts stays
    counted.
    """
    await records.delete_generation(
        generations, account_id=caller.account_id, generation_id=generation_id, environment=caller.environment
    )


@router.head("/images/{generation_id}.{extension}", include_in_schema=False)
@router.get(
    "/images/{generation_id}.{extension}",
    response_class=Response,
    responses={
        200: {"content": _IMAGES, "description": "The image, the same bytes every time."},
        206: {"content": _IMAGES, "description": "The part of it that `Range` asks for."},
        304: {"description": "The caller has it already."},
        307: {"description": "It is to be had from the store itself, for a while."},
        **problems(ImageNotFound, RangeNotSatisfiable, Invalid),
    },
    openapi_extra={"parameters": [WIDTH]},
)
async def show_image(request: Request, image: RequestedImage, generations: CurrentGenerations) -> Response:
    """Show an image, or a smaller copy of it. It needs no key: whoever has the URL may look."""
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
