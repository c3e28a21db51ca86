"""What the twin adds to the service that it shares: models by name, what cannot be honoured, errors in its format."""

from dataclasses import replace
from typing import Any

from app.catalogue.model import Catalogue, answer_kind
from app.catalogue.ratios import size_of
from app.core.errors import ApiError, FieldError, UnsupportedParameter
from app.features.openai.schemas import ImageOptions, ImagesCreate
from app.generations.errors import BudgetExceeded, InsufficientCredit
from app.generations.spec import GenerationSpec, ImageError


def with_answer_kind(spec: GenerationSpec, catalogue: Catalogue, *, asked: str | None) -> GenerationSpec:
    """The request with bytes in its answer where it asks for them, or its model's clients want them by default."""
    model = catalogue.get(spec.model)
    return replace(spec, as_bytes=(asked or answer_kind(model, spec.model)) == "b64_json")


def with_ratio(sent: ImagesCreate, spec: GenerationSpec, catalogue: Catalogue) -> GenerationSpec:
    """The request with the size of the model's that has the ratio and the resolution it asks for, if it names no size.
    Raises Invalid where the model has none.
    """
    if sent.size is not None or (sent.aspect_ratio is None and sent.resolution is None):
        return spec
    model = catalogue.get(sent.model)
    size = size_of(model, aspect_ratio=sent.aspect_ratio, image_size=sent.resolution, pointer="#/aspect_ratio")
    return replace(spec, size=size)


def check_honoured(sent: ImageOptions) -> None:
    """Raises UnsupportedParameter where there is one that cannot be honoured. It is named if we know the name too."""
    parameter = sent.unsupported
    if parameter is not None:
        raise UnsupportedParameter(parameter or None, None if parameter else "There is a parameter that nobody knows")
    if sent.background == "transparent" and sent.output_format == "jpeg":
        raise UnsupportedParameter("background", "A JPEG cannot be transparent; ask for output_format png or webp")


def error_body(error: ApiError) -> dict[str, Any]:
    """An error as OpenAI writes it: `{"error": {"message", "type", "param", "code"}}`."""
    return {
        "error": {
            "message": _message(error),
            "type": _type(error),
            "param": _parameter(error),
            "code": error.code,
        }
    }


def failed_image_body(failed: ImageError) -> dict[str, Any]:
    """The error of one image of several, of which others were delivered, in the same format."""
    message = f"The image with the index {failed.index} could not be made"
    return {"error": {"message": message, "type": "server_error", "param": None, "code": failed.code}}


_SERVER = 500
_TYPES = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}
_OF_MONEY = "insufficient_quota"
"""By which OpenAI's clients know a refusal that ends with a payment, and not with time."""


def _type(error: ApiError) -> str:
    if isinstance(error, InsufficientCredit | BudgetExceeded):
        return _OF_MONEY
    return _TYPES.get(error.status, "server_error" if error.status >= _SERVER else "invalid_request_error")


def _message(error: ApiError) -> str:
    if isinstance(error, UnsupportedParameter) and error.parameter:
        return f"{error.parameter}: {error.sentence}"
    return ". ".join([error.sentence, *map(_place_and_detail, error.members.get("errors", ()))])


def _place_and_detail(each: FieldError) -> str:
    place = _place(each)
    return f"{place}: {each['detail']}" if place else each["detail"]


def _parameter(error: ApiError) -> str | None:
    named: str | None = getattr(error, "parameter", None)
    for each in error.members.get("errors", ()):
        named = named or _place(each) or None
    return named


def _place(each: FieldError) -> str:
    """The parameter of the query, or the field, as OpenAI writes it: `messages[0].content`. Empty where it has no name
    here.
    """
    if "parameter" in each:
        return each["parameter"].removeprefix("*")
    steps = (f"[{step}]" if step.isdigit() else f".{step}" for step in each.get("pointer", "").split("/")[1:])
    return "".join(steps).removeprefix(".")
