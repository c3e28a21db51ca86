"""What the twin adds to the service that it shares: models by name, what cannot be honoured, pictures as bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pybase64

from app.core.errors import ApiError, InvalidRequest, NotFound
from app.generations.collaborators import Generations
from app.generations.serve import read_image
from app.generations.spec import MODEL, Delivered


class ModelNotFound(NotFound):
    code, detail, parameter = "model_not_found", "There is no such model", "model"


class UnsupportedParameter(InvalidRequest):
    code, detail = "unsupported_parameter", "This parameter cannot be honoured; leave it out"

    def __init__(self, parameter: str | None = None, detail: str | None = None) -> None:
        super().__init__(detail)
        self.parameter = parameter


def check_model(model: str | None, *, configured: str) -> None:
    """Raises ModelNotFound for a model other than ours."""
    if model not in {None, MODEL, configured}:
        raise ModelNotFound


def check_honoured(parameter: str | None) -> None:
    """Raises UnsupportedParameter where there is one that cannot be honoured. Its name is told if we know it too."""
    if parameter is not None:
        raise UnsupportedParameter(parameter or None, None if parameter else "There is a parameter that nobody knows")


@dataclass(frozen=True)
class Described:
    """A delivered picture: where it is, or its bytes in base64."""

    url: str | None = None
    b64_json: str | None = None


async def describe(generations: Generations, delivered: Delivered, *, as_bytes: bool) -> Sequence[Described]:
    """Every delivered picture, in order. The bytes of a replay are read from where they are kept: only that can fail,
    with ImageNotFound where one is gone, and Unavailable.
    """
    if not as_bytes:
        return [Described(url=url) for url in delivered.urls]
    contents = delivered.contents or [
        await read_image(generations, generation_id=each, image_format=delivered.format) for each in delivered.ids
    ]
    return [Described(b64_json=pybase64.b64encode_as_string(content)) for content in contents]


def error_body(error: ApiError) -> dict[str, Any]:
    """An error as OpenAI writes it: `{"error": {"message", "type", "param", "code"}}`."""
    return {
        "error": {
            "message": _message(error),
            "type": _TYPES.get(error.status, "server_error" if error.status >= _SERVER else "invalid_request_error"),
            "param": _parameter(error),
            "code": error.code,
        }
    }


_SERVER = 500
_TYPES = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def _message(error: ApiError) -> str:
    details = [str(each["detail"]) for each in error.members.get("errors", ())]
    return ". ".join([error.sentence, *details])


def _parameter(error: ApiError) -> str | None:
    named: str | None = getattr(error, "parameter", None)
    for each in error.members.get("errors", ()):
        named = named or str(each.get("pointer", "")).removeprefix("#").removeprefix("/").partition("/")[0] or None
    return named
