"""Every error says whether a client may repeat its request by itself."""

import pytest
from app.core.errors import ApiError, headers_of
from app.providers import ProviderUnusable
from tests.docs.test_docs import subclasses

MAY_BE_REPEATED = {
    "request_timeout",
    "idempotency_key_in_use",
    "rate_limit_exceeded",
    "concurrency_limit_exceeded",
    "queue_full",
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

ERRORS = sorted(subclasses(ApiError) - {ApiError}, key=lambda cls: cls.__name__)


def made(cls: type[ApiError]) -> ApiError:
    """An error of this class, whatever it is made with."""
    error = cls.__new__(cls)
    ApiError.__init__(error)
    vars(error).update(_retry_after_seconds=1, _credential_sent=True, _allowed="GET", _size=1)
    return error


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_may_be_repeated_where_that_can_help_and_was_not_paid(cls: type[ApiError]) -> None:
    may_be_repeated = cls.code in MAY_BE_REPEATED and not issubclass(cls, ProviderUnusable)
    error = made(cls)
    assert headers_of(error).get("x-should-retry") == (None if may_be_repeated else "false")
    error.may_have_been_paid = True
    assert headers_of(error)["x-should-retry"] == "false"


def test_the_codes_that_may_be_repeated_are_all_there() -> None:
    assert {cls.code for cls in ERRORS} >= MAY_BE_REPEATED
