"""What the twin's route depends on: an admitted request, and errors in OpenAI's format."""

from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError, headers_of
from app.features.admission import CurrentAdmission
from app.features.dependencies import CurrentServices
from app.features.image_answers import answer_memory
from app.features.openai import service
from app.features.openai.schemas import ImageGenerate
from app.generations.spec import GenerationSpec
from app.web.body import json_body
from app.web.error_responses import problem_response


class AdmittedRequest(NamedTuple):
    """What is to be made, and how many sketches a stream of it is to have; None for no stream."""

    spec: GenerationSpec
    partials: int | None


async def _admitted_request(
    services: CurrentServices,
    admission: CurrentAdmission,
    sent: Annotated[ImageGenerate, json_body(ImageGenerate)],
) -> AdmittedRequest:
    service.check_honoured(sent.unsupported)
    spec = service.with_answer_kind(sent.spec(), services.generations.catalogue.catalogue, asked=sent.response_format)
    await admission.take_further(spec.count - 1)
    return AdmittedRequest(spec, sent.partials)


Admitted = Annotated[AdmittedRequest, Depends(_admitted_request)]
"""A request within the limits for as many images as it asks for. Raises what refuses it."""


async def _answer_memory(
    services: CurrentServices, admission: CurrentAdmission, admitted: Admitted
) -> AsyncIterator[ByteShare]:
    holds_images = admitted.spec.as_bytes or admitted.partials is not None
    with answer_memory(services, admission.plan(admitted.spec), holds_images=holds_images) as memory:
        yield memory


AnswerMemory = Annotated[ByteShare, Depends(_answer_memory)]
"""The share of `answer_memory` that the response has."""


async def answer_error(_request: Request, error: ApiError) -> Response:
    """The error in OpenAI's format."""
    return JSONResponse(service.error_body(error), status_code=error.status, headers=headers_of(error))


async def answer_problem(request: Request, error: ApiError) -> Response:
    """The problem document of a path that is not OpenAI's, with the error in OpenAI's format as its member `error`:
    clients of OpenAI's API ask for paths that there are not here, and show nothing else.
    """
    return await problem_response(request, error, more=service.error_body(error))
