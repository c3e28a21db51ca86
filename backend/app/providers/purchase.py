"""Which calls to a provider may be repeated, decided by whether they may have been paid."""

from app.core.errors import ApiError
from app.providers import CallBudget

_FIRST_BYTE = ".send_request_headers.started"


class Again(Exception):
    """A try that failed as `error` says, while another one might not: no sooner than in `told_seconds`, if the provider
    said so. `Purchase.may_repeat` decides whether there is another one.

    `may_pay_twice` is for answers that hold nothing of worth: they are repeated once although they may have been paid.
    """

    def __init__(self, error: ApiError, *, may_pay_twice: bool = False, told_seconds: float | None = None) -> None:
        super().__init__()
        self.error = error
        self.may_pay_twice = may_pay_twice
        self.told_seconds = told_seconds


class BudgetClosed(Exception):
    """A call was not sent, because another image of the same request has failed for good."""


class Purchase:
    """The calls for one image, one after another, on the budget of its request.

    A call may have been paid from the moment at which the client begins to write its first byte, until the provider
    answers that it drew nothing. Whatever ends it in between (a lost connection, silence, an error of a gateway, an
    answer that cannot be read) changes nothing about that. Resolving the name, connecting and TLS come before.
    """

    def __init__(self, budget: CallBudget) -> None:
        self._budget = budget
        self._earlier_paid = False
        self._last_paid = False

    @property
    def may_have_been_paid(self) -> bool:
        """Whether any of its calls may have been paid."""
        return self._earlier_paid or self._last_paid

    def begin_call(self) -> None:
        self._earlier_paid, self._last_paid = self.may_have_been_paid, False

    async def trace(self, event: str, _info: object) -> None:
        """The `trace` extension of one call: httpcore2 names each of its steps here before it takes it. A connection
        that it kept is looked at, and replaced if the provider has closed it, before this step.

        Raises BudgetClosed instead of letting a call be sent for nothing.
        """
        if event.endswith(_FIRST_BYTE):
            if self._budget.is_closed:
                raise BudgetClosed
            self._last_paid = True

    def nothing_was_drawn(self) -> None:
        """The provider has said so about the last call."""
        self._last_paid = False

    def may_repeat(self, failed: Again, *, tries_max: int) -> bool:
        """Whether there may be one more call after the last one `failed`. If so, it is counted."""
        repeats_max = tries_max - 1
        if self._last_paid:
            repeats_max = min(1, repeats_max) if failed.may_pay_twice else 0
        return self._budget.take_repeat(repeats_max)

    def end(self) -> None:
        """Tells the budget what has become of it."""
        self._budget.may_have_been_paid |= self.may_have_been_paid
