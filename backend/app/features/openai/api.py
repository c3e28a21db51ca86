"""The twin over HTTP."""

from fastapi import APIRouter, Depends, Response

from app.core.errors import ConcurrencyLimited, RateLimited
from app.features.admission import IDEMPOTENCY_KEY, CurrentAdmission
from app.features.dependencies import CurrentGenerations
from app.features.keys.dependencies import bearer
from app.features.openai import service
from app.features.openai.dependencies import AdmittedSpec, problems
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

router = APIRouter(tags=["OpenAI"])


@router.post(
    ROUTE,
    dependencies=[Depends(bearer)],
    response_model=Images,
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
async def create_images(admission: CurrentAdmission, spec: AdmittedSpec, generations: CurrentGenerations) -> Response:
    """Make pictures as OpenAI's SDK asks for them: the same service, ledger and limits as `/v1/generate`.

    Each picture counts one, in usage and in the rate limit; all `n` are delivered, or none.
    """
    delivered = await admission.generate(spec, route=ROUTE)
    images = Images(
        created=int(delivered.created_at.timestamp()),
        data=await service.describe(generations, delivered, as_bytes=spec.as_bytes),
        size=spec.size,
        output_format=spec.format,
    )
    return Response(images.written(), media_type="application/json")
