"""Chat completions over HTTP."""

from fastapi import APIRouter, Depends, Request, Response

from app.core.errors import UnsupportedParameter
from app.features.admission import CurrentAdmission
from app.features.charged import charged
from app.features.chat.answers import answer_chat
from app.features.chat.dependencies import Admitted
from app.features.chat.schemas import ChatCompletion
from app.features.generation_problems import GENERATION_PROBLEMS
from app.features.idempotency import IDEMPOTENCY_KEY
from app.features.keys.dependencies import bearer
from app.web.openapi import openai_problems

ROUTE = "/v1/chat/completions"

router = APIRouter(tags=["Chat"])


@router.post(
    ROUTE,
    dependencies=[Depends(bearer)],
    response_model=ChatCompletion,
    response_model_exclude_none=True,
    responses=charged(
        {
            200: {"content": {"text/event-stream": {}}, "description": "An answer, or with `stream` its chunks."},
            **openai_problems(UnsupportedParameter, *GENERATION_PROBLEMS),
        }
    ),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def complete_chat(request: Request, admission: CurrentAdmission, admitted: Admitted) -> ChatCompletion | Response:
    """Make an image from the last message of a conversation, as OpenRouter's clients ask for it.

    It is made from the images of that message and the last image before it, and counts one. A request whose
    `modalities` have no `image` draws nothing and counts nothing: it is answered with a sentence.
    """
    return await answer_chat(request, admission, admitted, route=ROUTE)
