"""Google's interface over HTTP: the same below /v1beta and below /v1, and documented once."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response

from app.catalogue.model import ModelNotFound
from app.core.errors import RateLimited, UnsupportedParameter
from app.features.admission import CurrentAdmission
from app.features.charged import charged
from app.features.dependencies import CurrentGenerations, generations_of
from app.features.gemini import service
from app.features.gemini.answers import BLOCKED, content_frame, prediction_frame, refused_prediction
from app.features.gemini.dependencies import (
    Content,
    GoogleRoute,
    ModelName,
    Prediction,
    refuse_key_in_query,
)
from app.features.gemini.errors import google_problems
from app.features.gemini.schemas import ContentGenerated, GoogleModel, GoogleModelList, Predicted
from app.features.gemini.streaming import stream_answer
from app.features.generation_problems import GENERATION_PROBLEMS
from app.features.idempotency import IDEMPOTENCY_KEY
from app.features.image_answers import MODEL_HEADER, answer_in_base64
from app.features.keys.dependencies import Caller, bearer
from app.generations.errors import InvalidApiKey
from app.providers import ContentRefused
from app.web.headers import add_response_headers
from app.web.query import query_value

PATHS = r"/(?:upload|v1beta)(?:/.*)?|/v1/models/.+:(?:generateContent|streamGenerateContent|predict)"
"""Those that clients of Google's alone ask for."""

_CONTENT, _PREDICTION = "generateContent", "predict"
"""What an Idempotency-Key is one for: the same request below either version, streamed or not."""

_OF_READING = (InvalidApiKey, RateLimited)
_OF_DRAWING = [UnsupportedParameter, *(each for each in GENERATION_PROBLEMS if each is not ContentRefused)]
_ALT = {
    "name": "alt",
    "in": "query",
    "description": "`sse` for events; anything else for an array of chunks.",
    "schema": {"type": "string"},
}

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

router = APIRouter(route_class=GoogleRoute, tags=["Google"], dependencies=[Depends(refuse_key_in_query)])


def _route(method: str, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Registers an endpoint for the path below /v1beta, documented, and below /v1."""

    def register(endpoint: Endpoint) -> Endpoint:
        for version, is_documented in (("/v1beta", True), ("/v1", False)):
            router.add_api_route(
                f"{version}{path}", endpoint, methods=[method], include_in_schema=is_documented, **options
            )
        return endpoint

    return register


def _drawing(method: str, answer: Any, **more: Any) -> Callable[[Endpoint], Endpoint]:
    """Registers an endpoint that draws, as a method of a model."""
    return _route(
        "POST",
        f"/models/{{model:google_model}}:{method}",
        response_model=answer,
        response_model_exclude_none=True,
        dependencies=[Depends(bearer)],
        responses=charged({**more.get("responses", {}), **google_problems(*_OF_DRAWING)}),
        openapi_extra={"parameters": [IDEMPOTENCY_KEY, *more.get("parameters", ())]},
    )


@_drawing("generateContent", ContentGenerated)
async def generate_content(
    request: Request, admission: CurrentAdmission, admitted: Content
) -> ContentGenerated | Response:
    """Make an image from a conversation, as Google's clients ask for it: the same service, ledger and limits as
    `/v1/generate`.

    The prompt is the text of the user's last turn. What the provider refuses to draw is a 200 with `promptFeedback`.
    """
    try:
        delivered = await admission.generate(admitted.spec, route=_CONTENT)
    except ContentRefused:
        return BLOCKED
    add_response_headers(request, {MODEL_HEADER: delivered.model.encode()})
    text, memory = content_frame(delivered), admitted.memory
    return await answer_in_base64(generations_of(request), delivered, text, memory, when_read=admission.release)


@_drawing(
    "streamGenerateContent",
    list[ContentGenerated],
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events, or an array of chunks."}},
    parameters=[_ALT],
)
async def stream_generate_content(request: Request, admission: CurrentAdmission, admitted: Content) -> Response:
    """Make the same image, in a stream of one chunk."""
    as_events = query_value(request, "alt") == "sse"
    spec, memory = admitted
    return await stream_answer(request, admission, spec, memory, as_events=as_events, route=_CONTENT)


@_drawing("predict", Predicted)
async def predict(request: Request, admission: CurrentAdmission, admitted: Prediction) -> Predicted | Response:
    """Make images as clients of Imagen ask for them.

    Where only some of `sampleCount` can be made, these are delivered.
    """
    try:
        delivered = await admission.generate(admitted.spec, route=_PREDICTION)
    except ContentRefused:
        return refused_prediction(names_failed=admitted.names_failed)
    add_response_headers(request, {MODEL_HEADER: delivered.model.encode()})
    text, memory = prediction_frame(delivered, names_failed=admitted.names_failed), admitted.memory
    return await answer_in_base64(generations_of(request), delivered, text, memory, when_read=admission.release)


@_route("GET", "/models", responses=google_problems(*_OF_READING))
async def list_google_models(caller: Caller, generations: CurrentGenerations) -> GoogleModelList:
    """List the models as Google does, each also by its other names. Below /v1, for requests with `x-goog-api-key`."""
    return GoogleModelList(models=service.list_models(generations.catalogue.catalogue, caller.models))


@_route("GET", "/models/{model:google_model}", responses=google_problems(*_OF_READING, ModelNotFound))
async def get_google_model(caller: Caller, model: ModelName, generations: CurrentGenerations) -> GoogleModel:
    """Show one model as Google does."""
    return service.find_model(generations.catalogue.catalogue, model, caller.models)
