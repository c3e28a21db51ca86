"""What Google's routes depend on: which requests are theirs, admitted requests, and errors in Google's format."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import Match
from starlette.types import Scope

from app.core.byte_budget import ByteShare
from app.core.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, headers_of
from app.features.admission import CurrentAdmission
from app.features.dependencies import CurrentGenerations, CurrentServices
from app.features.gemini import service
from app.features.gemini.conversation import SentPart, read_conversation
from app.features.gemini.errors import error_body
from app.features.gemini.schemas import ContentGenerate, InlineData, Predict
from app.features.gemini.service import PredictionAsked
from app.features.image_answers import answer_memory
from app.features.input_images import read_sent_image, sent_image_of
from app.generations.collaborators import Generations
from app.generations.spec import GenerationSpec, SentImage
from app.web.body import json_body
from app.web.error_responses import ErrorFormat
from app.web.headers import header_values

_MODELS = "/v1/models"


class _GoogleModel(PathConvertor):
    """The name of a model in a path, which a colon ends: what follows it is the method. It may have slashes."""

    regex = "[^:]+"


register_url_convertor("google_model", _GoogleModel())


class GoogleRoute(APIRoute):
    """A route of Google's interface. Of the lists of models below /v1, which clients of OpenAI's interface ask for too,
    it takes the requests with a credential of Google's.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_shared = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(_MODELS)
        if is_shared and not _has_googles_credential(Request(scope)):
            return Match.NONE, {}
        return super().matches(scope)


def _has_googles_credential(request: Request) -> bool:
    return bool(header_values(request, b"x-goog-api-key")) or "key" in request.query_params


async def refuse_key_in_query(request: Request) -> None:
    """Raises InvalidRequest for a credential in the address."""
    if "key" in request.query_params:
        raise InvalidRequest("Send the API key in the header x-goog-api-key: addresses get into logs")


ModelName = Annotated[str, Path(examples=["gemini-2.5-flash-image"])]
"""The model, as a part of the path."""


async def _content_spec(
    services: CurrentServices,
    generations: CurrentGenerations,
    _admission: CurrentAdmission,
    model: ModelName,
    sent: Annotated[ContentGenerate, json_body(ContentGenerate)],
) -> GenerationSpec:
    service.check_honoured(sent)
    prompt, parts = read_conversation(sent)
    images = [await _sent_image(generations, part) for part in parts]
    return service.content_spec(sent, prompt, images, model=model, catalogue=services.generations.catalogue.catalogue)


async def _sent_image(generations: Generations, part: SentPart) -> SentImage:
    if isinstance(part.image, InlineData):
        return await sent_image_of(generations, part.image.data, pointer=part.pointer)
    return await read_sent_image(generations, part.image.file_uri, pointer=part.pointer)


ContentSpec = Annotated[GenerationSpec, Depends(_content_spec)]
"""The admitted request of `generateContent`. Raises what refuses it."""


async def _prediction_asked(
    services: CurrentServices,
    admission: CurrentAdmission,
    model: ModelName,
    sent: Annotated[Predict, json_body(Predict)],
) -> PredictionAsked:
    asked = service.prediction_spec(sent, model=model, catalogue=services.generations.catalogue.catalogue)
    await admission.take_further(asked.spec.count - 1)
    return asked


Asked = Annotated[PredictionAsked, Depends(_prediction_asked)]
"""A request of `predict` within the limits for as many images as it asks for. Raises what refuses it."""


async def _content_memory(
    services: CurrentServices, admission: CurrentAdmission, spec: ContentSpec
) -> AsyncIterator[ByteShare]:
    with answer_memory(services, admission.plan(spec), holds_images=True) as memory:
        yield memory


async def _prediction_memory(
    services: CurrentServices, admission: CurrentAdmission, asked: Asked
) -> AsyncIterator[ByteShare]:
    with answer_memory(services, admission.plan(asked.spec), holds_images=True) as memory:
        yield memory


ContentMemory = Annotated[ByteShare, Depends(_content_memory)]
PredictionMemory = Annotated[ByteShare, Depends(_prediction_memory)]
"""The share of `answer_memory` that the response has."""


async def answer_error(_request: Request, error: ApiError) -> Response:
    """The error in Google's format."""
    body = error_body(error)
    return JSONResponse(body, status_code=body["error"]["code"], headers=headers_of(error))


def google_error_or(other: ErrorFormat) -> ErrorFormat:
    """The format of paths that clients of Google's interface and of another ask for: Google's for a request with a
    credential of Google's, about models or for a path that there is not; else the other. To Google's clients a method
    of a model that there is not is a 404.
    """

    async def answer(request: Request, error: ApiError) -> Response:
        is_shared = request.scope["path"].startswith(_MODELS) or type(error) is NotFound
        if not is_shared or not _has_googles_credential(request):
            return await other(request, error)
        return await answer_error(request, NotFound() if isinstance(error, MethodNotAllowed) else error)

    return answer
