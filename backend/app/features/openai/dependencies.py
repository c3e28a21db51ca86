"""What the twin's routes depend on: an admitted request, and errors in OpenAI's format."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, NamedTuple

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError, Invalid, headers_of
from app.features.admission import Admission, PreferredAdmission
from app.features.dependencies import CurrentGenerations, CurrentServices
from app.features.image_answers import answer_memory
from app.features.input_images import NamedInput, read_input
from app.features.openai import service
from app.features.openai.edits import EditBody, SentEdit
from app.features.openai.schemas import ImageGenerate, ImageOptions, ImagesCreate
from app.features.terms import Terms, read_terms
from app.generations.spec import GenerationSpec
from app.services import Services
from app.web.body import json_body
from app.web.error_responses import problem_response


class AdmittedRequest(NamedTuple):
    """What is to be made, how many sketches a stream of it is to have, None for no stream, the share of `answer_memory`
    that the response has, and the terms of an asynchronous request.
    """

    spec: GenerationSpec
    partials: int | None
    memory: ByteShare
    terms: Terms | None


@asynccontextmanager
async def _admitted(
    services: Services, admission: Admission, sent: ImageOptions, spec: GenerationSpec
) -> AsyncIterator[AdmittedRequest]:
    """A request within the limits for as many images as it asks for."""
    terms = read_terms(sent, admission.preference)
    if terms is not None:
        if sent.partials is not None:
            raise Invalid([{"pointer": "#/stream", "detail": "Cannot be combined with an answer that does not wait"}])
        admission.leave_slots()
    await admission.take_further(spec.count - 1)
    holds_images = terms is None and (spec.as_bytes or sent.partials is not None)
    with answer_memory(services, admission.plan(spec), holds_images=holds_images) as memory:
        yield AdmittedRequest(spec, sent.partials, memory, terms)


async def _generation(
    services: CurrentServices,
    admission: PreferredAdmission,
    sent: Annotated[ImageGenerate, json_body(ImageGenerate)],
) -> AsyncIterator[AdmittedRequest]:
    service.check_honoured(sent)
    spec = service.with_answer_kind(sent.spec(), services.generations.catalogue.catalogue, asked=sent.response_format)
    async with _admitted(services, admission, sent, spec) as admitted:
        yield admitted


async def _edit(
    services: CurrentServices,
    generations: CurrentGenerations,
    admission: PreferredAdmission,
    sent: Annotated[SentEdit, Depends(EditBody())],
) -> AsyncIterator[AdmittedRequest]:
    images = await admission.read_inputs(generations, sent.images, images=sent.whole)
    mask = await read_input(generations, sent.mask) if sent.mask else None
    options = sent.options
    spec = replace(options.spec(images, mask), as_bytes=options.response_format != "url")
    async with _admitted(services, admission, options, spec) as admitted:
        yield admitted


async def _by_ratio(
    services: CurrentServices,
    generations: CurrentGenerations,
    admission: PreferredAdmission,
    sent: Annotated[ImagesCreate, json_body(ImagesCreate)],
) -> AsyncIterator[AdmittedRequest]:
    service.check_honoured(sent)
    inputs = [
        NamedInput(f"#/input_references/{index}/image_url/url", each.image_url.url)
        for index, each in enumerate(sent.input_references or ())
    ]
    images = await admission.read_inputs(generations, inputs, images="#/input_references")
    spec = service.with_ratio(sent, sent.spec(images), services.generations.catalogue.catalogue)
    async with _admitted(services, admission, sent, replace(spec, as_bytes=True)) as admitted:
        yield admitted


AdmittedGeneration = Annotated[AdmittedRequest, Depends(_generation)]
AdmittedEdit = Annotated[AdmittedRequest, Depends(_edit)]
AdmittedByRatio = Annotated[AdmittedRequest, Depends(_by_ratio)]
"""A request within the limits for as many images as it asks for. Raises what refuses it."""


async def answer_error(_request: Request, error: ApiError) -> Response:
    """The error in OpenAI's format."""
    return JSONResponse(service.error_body(error), status_code=error.status, headers=headers_of(error))


async def answer_problem(request: Request, error: ApiError) -> Response:
    """The problem document of a path that is not OpenAI's, with the error in OpenAI's format as its member `error`:
    clients of OpenAI's API ask for paths that there are not here, and show nothing else.
    """
    return await problem_response(request, error, more=service.error_body(error))
