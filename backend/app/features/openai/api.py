"""The twin over HTTP."""

from fastapi import APIRouter, Depends, Request

from app.core.errors import ConcurrencyLimited, RateLimited
from app.features.generate import service as generate
from app.features.generate.dependencies import IDEMPOTENCY_KEY, CurrentStudio, set_replayed_header
from app.features.keys.dependencies import bearer
from app.features.keys.service import InvalidApiKey
from app.features.openai import service
from app.features.openai.dependencies import AdmittedRequest, problems
from app.features.openai.schemas import Images
from app.features.usage.ledger.entries import IdempotencyKeyInUse, IdempotencyKeyReused, OutcomeUnknown
from app.providers import PROVIDER_PROBLEMS
from app.web.openapi import BODY_PROBLEMS

ROUTE = "/v1/images/generations"

router = APIRouter(tags=["OpenAI"])


@router.post(
    ROUTE,
    dependencies=[Depends(bearer)],
    response_model_exclude_none=True,
    responses=problems(
        InvalidApiKey,
        RateLimited,
        ConcurrencyLimited,
        IdempotencyKeyReused,
        IdempotencyKeyInUse,
        generate.ImageDeleted,
        OutcomeUnknown,
        service.ModelNotFound,
        *PROVIDER_PROBLEMS,
        *BODY_PROBLEMS,
    ),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
)
async def create_images(request: Request, admitted: AdmittedRequest, studio: CurrentStudio) -> Images:
    """Make pictures as OpenAI's SDK asks for them: the same service, ledger and limits as `/v1/generate`.

    Each picture counts one, in usage and in the rate limit; all `n` are delivered, or none.
    """
    delivered = await generate.generate(
        studio,
        caller=admitted.caller,
        wish=admitted.wish,
        route=ROUTE,
        idempotency_key=admitted.idempotency_key,
    )
    set_replayed_header(request, delivered)
    return Images(
        created=int(delivered.created_at.timestamp()),
        data=await service.describe(studio, delivered, as_bytes=admitted.wish.as_bytes),
        size=str(admitted.wish.size),
        output_format=admitted.wish.format,
    )
