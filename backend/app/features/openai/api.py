"""The twin over HTTP."""

from fastapi import APIRouter, Depends, Response

from app.core.errors import ConcurrencyLimited, RateLimited
from app.features.admission import IDEMPOTENCY_KEY, CurrentAdmission
from app.features.dependencies import CurrentGenerations
from app.features.keys.dependencies import bearer
from app.features.openai import service
from app.features.openai.answers import images_answer
from app.features.openai.dependencies import AdmittedSpec, AnswerMemory, problems
from app.features.openai.schemas import Images
from app.generations.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    ImageDeleted,
    InvalidApiKey,
    OutcomeUnknown,
)
from app.providers import PROVIDER_PROBLEMS
from app.web.openapi import BODY_PROBLEMS

ROUTE = "/v1/images/generations"

NOT_OFFERED = {"/v1/images/variations": "Variations of an image are not offered here; make one from a prompt"}
"""What OpenAI's clients ask for by these paths, with the sentence of the 404."""

router = APIRouter(tags=["OpenAI"])


@router.post(
    ROUTE,
    response_model=Images,
    dependencies=[Depends(bearer)],
    response_model_exclude_none=True,
    responses=problems(
        InvalidApiKey,
        RateLimited,
        ConcurrencyLimited,
        IdempotencyKeyReused,
        IdempotencyKeyInUse,
        ImageDeleted,
        OutcomeUnknown,
        service.ModelNotFound,
        *PROVIDER_PROBLEMS,
        *BODY_PROBLEMS,
    ),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def create_images(
    admission: CurrentAdmission, spec: AdmittedSpec, generations: CurrentGenerations, memory: AnswerMemory
) -> Images | Response:
    """Make pictures as OpenAI's SDK asks for them: the same service, ledger and limits as `/v1/generate`.

    Each picture counts one, in the rate limit when it is asked for, and in usage when it is delivered. Where only some
    of `n` can be made, these are delivered, and `errors` has a code for each of the others.
    """
    return await images_answer(
        generations, await admission.generate(spec, route=ROUTE), spec, memory, when_read=admission.release
    )
