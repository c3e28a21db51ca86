"""What Google's routes depend on: which requests are theirs, admitted requests, and errors in Google's format."""

from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple

from fastapi import Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.routing import Match
from starlette.types import Scope

from app.core.blobs import Blob
from app.core.byte_budget import ByteShare
from app.core.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, headers_of
from app.core.long_text import ImageText
from app.features.admission import CurrentAdmission
from app.features.dependencies import CurrentGenerations, CurrentServices
from app.features.gemini import service
from app.features.gemini.conversation import SentPart, read_conversation
from app.features.gemini.errors import error_body
from app.features.gemini.schemas import ContentGenerate, InlineData, Predict
from app.features.image_answers import answer_memory
from app.features.input_images import NamedInput, sent_image_of
from app.generations.collaborators import Generations
from app.generations.spec import GenerationSpec
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


class AdmittedContent(NamedTuple):
    """A request of `generateContent`, and the share of `answer_memory` that the response has."""

    spec: GenerationSpec
    memory: ByteShare


class AdmittedPrediction(NamedTuple):
    """A request of `predict`, whether the response says why an image could not be made, and its share of memory."""

    spec: GenerationSpec
    names_failed: bool
    memory: ByteShare


async def _content(
    services: CurrentServices,
    generations: CurrentGenerations,
    admission: CurrentAdmission,
    model: ModelName,
    sent: Annotated[ContentGenerate, json_body(ContentGenerate)],
) -> AsyncIterator[AdmittedContent]:
    service.check_honoured(sent)
    prompt, parts = read_conversation(sent)
    inputs = [NamedInput(each.pointer, await _sent(generations, each)) for each in parts]
    images = await admission.read_inputs(generations, inputs, images="#/contents", size=service.IMAGE_CONFIG)
    spec = service.content_spec(sent, prompt, images, model=model, catalogue=generations.catalogue.catalogue)
    with answer_memory(services, admission.plan(spec), holds_images=True) as memory:
        yield AdmittedContent(spec, memory)


async def _sent(generations: Generations, part: SentPart) -> ImageText | Blob:
    if isinstance(part.image, InlineData):
        return await sent_image_of(generations, part.image.data, pointer=part.pointer)
    return part.image.file_uri


async def _prediction(
    services: CurrentServices,
    generations: CurrentGenerations,
    admission: CurrentAdmission,
    model: ModelName,
    sent: Annotated[Predict, json_body(Predict)],
) -> AsyncIterator[AdmittedPrediction]:
    admission.pointers = {"#/size": service.PARAMETERS, "#/n": f"{service.PARAMETERS}/sampleCount"}
    spec = service.prediction_spec(sent, model=model, catalogue=generations.catalogue.catalogue)
    await admission.take_further(spec.count - 1)
    with answer_memory(services, admission.plan(spec), holds_images=True) as memory:
        yield AdmittedPrediction(spec, service.names_failed(sent), memory)


Content = Annotated[AdmittedContent, Depends(_content)]
Prediction = Annotated[AdmittedPrediction, Depends(_prediction)]
"""A request within the limits for as many images as it asks for. Raises what refuses it."""


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
