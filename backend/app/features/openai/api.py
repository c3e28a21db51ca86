"""The twin over HTTP."""

import re
from functools import partial

from fastapi import APIRouter, Depends, Request, Response

from app.core.errors import UnsupportedParameter
from app.features.admission import PreferredAdmission
from app.features.charged import charged
from app.features.generate.asynchronous import ACCEPTED
from app.features.generation_problems import GENERATION_PROBLEMS
from app.features.idempotency import IDEMPOTENCY_KEY
from app.features.keys.dependencies import bearer
from app.features.openai.answers import images_answer
from app.features.openai.dependencies import AdmittedByRatio, AdmittedEdit, AdmittedGeneration
from app.features.openai.schemas import Images
from app.features.preferences import PREFER
from app.generations.errors import QueueFull
from app.generations.failures import ASYNCHRONOUS_PROBLEMS
from app.generations.uploads import UploadsFull
from app.web.openapi import openai_problems

ROUTE = "/v1/images/generations"
EDITS = "/v1/images/edits"
IMAGES = "/v1/images"
PATHS = "/v1/images(/generations|/edits)?"
"""The paths of these routes, as a pattern."""

NOT_OFFERED = (
    (re.compile("/v1/images/variations"), "Variations of an image are not offered here; make one from a prompt"),
    (
        re.compile("/v1/responses(?:/.*)?", re.DOTALL),
        f"Responses are not offered here; ask for images at {ROUTE}, or by chat completions",
    ),
    (re.compile("/v1/v1(?:/.*)?", re.DOTALL), "The base URL has /v1 twice"),
)
"""What OpenAI's clients ask for by these paths, with the sentence of the 404."""

router = APIRouter(tags=["OpenAI"])
_makes_images = partial(
    router.post,
    response_model=Images,
    dependencies=[Depends(bearer)],
    response_model_exclude_none=True,
    responses=charged(
        {
            200: {"content": {"text/event-stream": {}}, "description": "Images, or with `stream` events."},
            **ACCEPTED,
            **openai_problems(
                UnsupportedParameter, QueueFull, UploadsFull, *GENERATION_PROBLEMS, *ASYNCHRONOUS_PROBLEMS
            ),
        }
    ),
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
)


@_makes_images(ROUTE)
async def create_images(
    request: Request, admission: PreferredAdmission, admitted: AdmittedGeneration
) -> Images | Response:
    """Make images as OpenAI's SDK asks for them: the same service, ledger and limits as `/v1/generate`.

    Each image counts one, in the rate limit when it is asked for, and in usage when it is delivered. Where only some
    of `n` can be made, these are delivered, and `errors` has a code for each of the others.
    """
    return await images_answer(request, admission, admitted, route=ROUTE)


@_makes_images(EDITS)
async def edit_images(request: Request, admission: PreferredAdmission, admitted: AdmittedEdit) -> Images | Response:
    """Make images from others, as OpenAI's SDK asks for it: from files in a form, or from what JSON names.

    Up to 16 images go in; a mask says where the first may change. Everything else is as for images from a prompt,
    but that `size` is by default the shape of the first image, and the answer holds bytes unless it is to be `url`.
    """
    return await images_answer(request, admission, admitted, route=EDITS)


@_makes_images(IMAGES)
async def create_images_by_ratio(
    request: Request, admission: PreferredAdmission, admitted: AdmittedByRatio
) -> Images | Response:
    """Make images as OpenRouter's SDK asks for them: from a prompt and images, in the shape of a ratio, as bytes."""
    return await images_answer(request, admission, admitted, route=IMAGES)
