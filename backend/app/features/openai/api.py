"""The twin over HTTP."""

from fastapi import APIRouter, Depends, Request, Response

from app.features.admission import GENERATION_PROBLEMS, IDEMPOTENCY_KEY, CurrentAdmission
from app.features.dependencies import generations_of
from app.features.image_answers import MODEL_HEADER
from app.features.keys.dependencies import bearer
from app.features.openai.answers import images_answer
from app.features.openai.dependencies import Admitted, AnswerMemory
from app.features.openai.schemas import Images
from app.features.openai.streaming import stream_answer
from app.web.headers import add_response_headers
from app.web.openapi import openai_problems

ROUTE = "/v1/images/generations"
EDITS = "/v1/images/edits"
IMAGES = "/v1/images"
PATHS = "/v1/images(/generations|/edits)?"
"""The paths of these routes, as a pattern."""

NOT_OFFERED = {"/v1/images/variations": "Variations of an image are not offered here; make one from a prompt"}
"""What OpenAI's clients ask for by these paths, with the sentence of the 404."""

router = APIRouter(tags=["OpenAI"])


@router.post(
    ROUTE,
    response_model=Images,
    dependencies=[Depends(bearer)],
    response_model_exclude_none=True,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Images, or with `stream` events."},
        **openai_problems(*GENERATION_PROBLEMS),
    },
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def create_images(
    request: Request, admission: CurrentAdmission, admitted: Admitted, memory: AnswerMemory
) -> Images | Response:
    """Make pictures as OpenAI's SDK asks for them: the same service, ledger and limits as `/v1/generate`.

    Each picture counts one, in the rate limit when it is asked for, and in usage when it is delivered. Where only some
    of `n` can be made, these are delivered, and `errors` has a code for each of the others.
    """
    spec, partials = admitted
    if partials is not None:
        return await stream_answer(request, admission, spec, memory, partials=partials, route=ROUTE)
    delivered = await admission.generate(spec, route=ROUTE)
    add_response_headers(request, {MODEL_HEADER: delivered.model.encode()})
    return await images_answer(generations_of(request), delivered, spec, memory, when_read=admission.release)
