"""The errors that are recorded with generations, by their codes."""

from collections.abc import Callable, Mapping

from app.catalogue.model import ModelNotFound
from app.core.errors import ApiError, InternalError, Unavailable
from app.generations.errors import (
    AccountDisabled,
    AttemptsExhausted,
    GenerationCancelled,
    GenerationExpired,
    GenerationLost,
    InputGone,
    KeyRevoked,
    ModelChanged,
)
from app.models import GenerationStatus
from app.providers import PROVIDER_PROBLEMS

ASYNCHRONOUS_PROBLEMS = (
    GenerationExpired,
    AttemptsExhausted,
    GenerationLost,
    GenerationCancelled,
    KeyRevoked,
    AccountDisabled,
    InputGone,
    ModelChanged,
)
"""What only an asynchronous generation can end with."""

_ERRORS: Mapping[str, Callable[[], ApiError]] = {
    **{each.code: each for each in (*PROVIDER_PROBLEMS, *ASYNCHRONOUS_PROBLEMS, Unavailable)},
    ModelNotFound.code: lambda: ModelNotFound(["one that GET /v1/models lists"]),
}
_BY_STATUS: Mapping[GenerationStatus, type[ApiError]] = {
    "failed": InternalError,
    "lost": GenerationLost,
    "cancelled": GenerationCancelled,
}


def failure_of(status: GenerationStatus, code: str | None) -> ApiError | None:
    """Why a generation with this status was not delivered, by the code of its row; None for one that was, or has not
    ended. The sentence is the usual one of that code.
    """
    of_status = _BY_STATUS.get(status)
    return None if of_status is None else _ERRORS.get(code or "", of_status)()
