"""What the twin's route stands on: a caller within all limits, and what it asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse

from app.core.errors import ApiError
from app.features.generate.dependencies import AdmittedCaller, IdempotencyKey, take_further
from app.features.generate.studio import Wish
from app.features.keys.service import Caller
from app.features.openai import service
from app.features.openai.schemas import ImageGenerate
from app.web import openapi
from app.web.body import json_body


@dataclass(frozen=True)
class Admitted:
    """A request that may go on."""

    caller: Caller
    wish: Wish
    idempotency_key: str | None


async def _admitted(
    request: Request,
    idempotency_key: IdempotencyKey,
    caller: AdmittedCaller,
    sent: Annotated[ImageGenerate, json_body(ImageGenerate)],
) -> Admitted:
    service.check_model(sent.model, configured=request.app.state.settings.model)
    service.check_honoured(sent.not_to_be_honoured)
    wish = sent.wish
    await take_further(request, caller, units=wish.count - 1)
    return Admitted(caller, wish, idempotency_key)


AdmittedRequest = Annotated[Admitted, Depends(_admitted)]
"""A request within the limits for as many pictures as it asks for. Raises what refuses it."""


async def answer_error(_request: Request, error: ApiError) -> Response:
    """The error in OpenAI's envelope."""
    return JSONResponse(service.envelope(error), status_code=error.status, headers=dict(error.headers))


def problems(*errors: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """As every route's, in OpenAI's envelope."""
    told = openapi.problems(service.UnsupportedParameter, *errors)
    return {status: {**each, "content": _ERROR} for status, each in told.items()}


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_ERROR: Mapping[str, Any] = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["message", "type", "param", "code"],
                    "properties": {"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT},
                }
            },
        }
    }
}
