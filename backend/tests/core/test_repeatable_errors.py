"""Every error says whether a client may repeat its request by itself."""

from collections.abc import Iterator

import pytest
from app import main
from app.core.errors import ApiError, MethodNotAllowed, headers_of
from app.providers import ProviderUnusable

MAY_BE_REPEATED = {
    "request_timeout",
    "idempotency_key_in_use",
    "rate_limit_exceeded",
    "concurrency_limit_exceeded",
    "internal_error",
    "no_image_returned",
    "provider_failed",
    "unavailable",
    "overloaded",
    "provider_unavailable",
    "outcome_unknown",
    "provider_timeout",
}
"""The codes of errors after which the same request can succeed, where none of them was paid for."""


def _classes(cls: type[ApiError]) -> Iterator[type[ApiError]]:
    for each in cls.__subclasses__():
        yield each
        yield from _classes(each)


def _made(cls: type[ApiError]) -> ApiError:
    """An error of this class, whatever it is made with."""
    error = cls.__new__(cls)
    ApiError.__init__(error)
    error.__dict__.update(_retry_after_seconds=1, _credential_sent=True, _allowed="GET", _size=1)
    return error


ERRORS = sorted(set(_classes(ApiError)), key=lambda cls: (cls.code, cls.__name__))


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_may_be_repeated_where_that_can_help_and_has_not_been_paid(cls: type[ApiError]) -> None:
    may_be_repeated = cls.code in MAY_BE_REPEATED and not issubclass(cls, ProviderUnusable)
    error = _made(cls)
    assert headers_of(error).get("x-should-retry") == (None if may_be_repeated else "false")
    error.may_have_been_paid = True
    assert headers_of(error)["x-should-retry"] == "false"


def test_every_error_of_the_application_is_among_them() -> None:
    assert main
    codes = {cls.code for cls in ERRORS}
    assert codes >= MAY_BE_REPEATED | {"email_already_registered", "key_limit_reached", "content_policy_violation"}
    assert MethodNotAllowed in ERRORS
