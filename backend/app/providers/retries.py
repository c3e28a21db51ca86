"""Which calls to a provider may be repeated: it depends on whether they may have been paid."""

import re
from collections.abc import Mapping

from app.core.errors import ApiError
from app.providers import FAILS_EVERY_IMAGE, CallBudget, CallTally, ProviderError, RouteFailure
from app.providers.reachability import Reason

_FIRST_BYTE = ".send_request_headers.started"
_REQUEST_ID = re.compile("[!-~]{1,200}", re.ASCII)


class Retry(Exception):
    """An attempt failed with `error`, and another one may succeed, `after_seconds` later if the provider named a delay.
    `ImageCalls.may_repeat` decides whether there is another attempt.

    `may_pay_twice` marks a response that holds nothing usable: it is repeated once although it may have been paid.
    """

    def __init__(self, error: ApiError, *, may_pay_twice: bool = False, after_seconds: float | None = None) -> None:
        super().__init__()
        self.error = error
        self.may_pay_twice = may_pay_twice
        self.after_seconds = after_seconds


class NotReached(Retry):
    """No connection was made, or it ended without a whole response."""

    def __init__(self, error: ApiError, reason: Reason) -> None:
        super().__init__(error)
        self.reason = reason


class BudgetClosed(Exception):
    """A call was not sent, because another image of the same client request has failed with `error`, and this one would
    too.
    """

    def __init__(self, error: ApiError) -> None:
        super().__init__()
        self.error = error


class ImageCalls:
    """The calls for one image, one after another, on the budget of its client request and before `deadline` (of the
    event loop's clock). `leaves_unpaid_failures` as in DrawRequest.

    A call may have been paid from the moment the HTTP client starts to write its first byte, until the provider
    responds that it drew nothing. Any other end (a lost connection, silence, a gateway's error, an unreadable
    response) leaves it so. Name resolution, connecting and TLS come before the first byte.
    """

    def __init__(
        self, budget: CallBudget, deadline: float, *, tally: CallTally, leaves_unpaid_failures: bool = False
    ) -> None:
        self.deadline = deadline
        self.budget = budget
        self.calls = self.paid_calls = 0
        self.interruption: RouteFailure = "no_slot"
        """The failure where it ends at this moment without a response."""
        self.provider_request_id: str | None = None
        self.status: int | None = None
        """Both of the last call's response."""
        self._tally = tally
        self.leaves_unpaid_failures = leaves_unpaid_failures
        self._last_paid = False

    @property
    def may_have_been_paid(self) -> bool:
        return self.paid_calls > 0

    def begin_call(self) -> None:
        self._last_paid, self.interruption = False, "unreachable"
        self.provider_request_id = self.status = None

    async def trace(self, event: str, info: Mapping[str, object]) -> None:
        """The `trace` extension of one call: the transport names each step here before it takes it. By the first byte
        it has already replaced an idle connection that the provider closed. The CONNECT to a proxy is no call.

        Raises BudgetClosed to stop a call whose image is no longer wanted.
        """
        if event.endswith(_FIRST_BYTE) and getattr(info.get("request"), "method", None) != b"CONNECT":
            if self.budget.closed_by is not None:
                raise BudgetClosed(self.budget.closed_by)
            self.calls += 1
            self.paid_calls += 1
            self._last_paid, self.interruption = True, "failed"

    def identify(self, *texts: str | None) -> None:
        """Takes the first of them that can be the provider's id of the last call, if any."""
        found = (text for text in texts if text and _REQUEST_ID.fullmatch(text))
        self.provider_request_id = next(found, self.provider_request_id)

    def mark_unpaid(self) -> None:
        """Records that the provider drew nothing for the last call."""
        self.paid_calls -= self._last_paid
        self._last_paid = False

    def may_repeat(self, failed: Retry, *, attempts_max: int) -> bool:
        """Counts one more call and returns True, or returns False where the last failure allows none."""
        repeats_max = attempts_max - 1
        if self._last_paid:
            repeats_max = min(1, repeats_max) if failed.may_pay_twice else 0
        elif self.leaves_unpaid_failures:
            repeats_max = 0
        return self.budget.take_repeat(repeats_max)

    def fail(self, error: ApiError) -> None:
        """Records on the error whether a call may have been paid, and the last response's id and status. Closes the
        budget where the error is one that each image of the request would fail with.
        """
        error.may_have_been_paid |= self.may_have_been_paid
        if isinstance(error, ProviderError):
            error.provider_request_id = error.provider_request_id or self.provider_request_id
            error.provider_status = self.status
        if isinstance(error, FAILS_EVERY_IMAGE):
            self.budget.close(error)

    def end(self) -> None:
        """Adds the calls to the tally, and records on the budget whether one may have been paid."""
        self._tally.interruption = self.interruption
        self._tally.calls += self.calls
        self._tally.paid_calls += self.paid_calls
        self.budget.may_have_been_paid |= self.may_have_been_paid
