"""The port to whatever draws pictures, the values that cross it, and what can go wrong behind it."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from app.core.errors import ApiError, Unavailable


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(slots=True, eq=False)
class CallBudget:
    """The calls to a provider that one request of a client may cost, over all its images.

    Each image has one call, and the repeats after a failure are counted for the request: `n` images cost at most
    `n + repeats_max` calls.
    """

    repeats: int = 0
    is_closed: bool = False
    """Whether an image has failed for good: no call is sent any more."""
    may_have_been_paid: bool = False
    """Whether a call was sent that the provider may charge for."""

    def take_repeat(self, repeats_max: int) -> bool:
        """Whether there may be one more call after one that failed. If so, it is counted."""
        if self.is_closed or self.repeats >= repeats_max:
            return False
        self.repeats += 1
        return True

    def close(self) -> None:
        """Lets no further call be sent."""
        self.is_closed = True


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be drawn, and on which request's budget."""

    prompt: str
    size: Size
    budget: CallBudget = field(default_factory=CallBudget, compare=False, repr=False)
    """The images of one request share one; by default an image has a request to itself."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes of a picture of exactly the ordered size, and what they are: image/png, image/jpeg or image/webp."""

    content: bytes
    media_type: str


class Provider(Protocol):
    """Draws pictures."""

    name: str
    is_deterministic: bool
    """Whether the same order gives the same bytes every time, at no cost: then drawing can wait for whoever looks."""

    def refusal(self, size: Size) -> str | None:
        """Why this size cannot be drawn, as a sentence that lists what can; None where it can."""
        ...

    async def draw(self, order: Order, *, deadline: float) -> Picture:
        """The picture, before `deadline` (of the event loop's clock).

        Raises one of the errors below, or Unavailable when too much waits already. None of them holds a word of the
        provider's, and each says whether this image `may_have_been_paid`.

        A call that may have been paid is not sent again, but once after an answer without an image and without a
        reason. All calls are on the order's budget, which also knows whether any of the request may have been paid.
        """
        ...

    async def check(self) -> str:
        """`ok`, once its address, key and model have been tried by asking for nothing that costs; or what could not be.

        Raises ProviderUnavailable, with one sentence for the operator, for what cannot be used.
        """
        ...


class ContentRefused(ApiError):
    status, title, code = 400, "Bad Request", "content_policy_violation"
    detail = "The provider refuses to draw this prompt"
    is_worth_repeating = False


class NoImageReturned(ApiError):
    status, title, code = 502, "Bad Gateway", "no_image_returned"
    detail = "The provider returned no picture and no reason"


class ProviderFailed(ApiError):
    status, title, code = 502, "Bad Gateway", "provider_failed"
    detail = "The provider failed"


class ProviderTimeout(ApiError):
    status, title, code = 504, "Gateway Timeout", "provider_timeout"
    detail = "The provider took too long"


class ProviderUnavailable(Unavailable):
    code = "provider_unavailable"
    detail = "The provider cannot be used now"


PROVIDER_PROBLEMS = (ContentRefused, NoImageReturned, ProviderFailed, ProviderTimeout, ProviderUnavailable)
"""All of them."""
