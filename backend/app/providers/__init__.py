"""The port to image providers: the values that cross it, and the errors that a provider raises."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from app.core.errors import ApiError, Unavailable
from app.core.images import MEDIA_TYPES, ImageFormat

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> "Size | None":
        """The size that is written as `1024x1024`; None for any other text."""
        match = _SIZE.fullmatch(text)
        return cls(int(match[1]), int(match[2])) if match else None

    @classmethod
    def of(cls, text: str) -> "Size":
        """The same of a text that was accepted before. Raises ValueError for any other."""
        size = cls.parse(text)
        if size is None:
            raise ValueError("not a size")
        return size

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(slots=True, eq=False)
class CallBudget:
    """The calls to a provider that one client request of an account may cost, over all its images.

    Each image has one call, and the repeats after a failure are counted for the request: `n` images cost at most
    `n + repeats_max` calls.
    """

    account_id: str = ""
    repeats: int = 0
    closed_by: ApiError | None = None
    """The error of one image that each further image would fail with too: no further call is sent."""
    may_have_been_paid: bool = False
    """Whether a call was sent that the provider may charge for."""
    is_admitted: bool = False
    """Whether one of its images has had a slot of the provider, or a place in the line for one."""
    waiting: set[asyncio.Future[bool]] = field(default_factory=set)
    """Of each image in that line: whether it got a slot."""

    def take_repeat(self, repeats_max: int) -> bool:
        """Counts one more call after a failed one, and returns True; or returns False where none is allowed."""
        if self.closed_by is not None or self.repeats >= repeats_max:
            return False
        self.repeats += 1
        return True

    def close(self, error: ApiError) -> None:
        """Lets no further call be sent: images that have none yet fail with this error, also those that wait."""
        self.closed_by = self.closed_by or error
        for each in self.waiting:
            if not each.done():
                each.set_result(False)


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One image to draw, and the budget of the client request that it belongs to."""

    prompt: str
    size: Size
    budget: CallBudget = field(default_factory=CallBudget, compare=False, repr=False)
    """Shared by the images of one client request; by default an image has its own."""
    group: str = field(default="", compare=False, repr=False)
    """The clients whose turn it takes in the queue of a provider that draws at no cost, which all clients share."""


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of an image, of exactly the requested size."""

    content: bytes
    format: ImageFormat

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.format]


class Provider(Protocol):
    """Draws images."""

    name: str
    is_deterministic: bool
    """Whether equal requests give equal bytes, at no cost: then the image can be drawn when it is first read."""

    def refusal(self, size: Size | None) -> str | None:
        """None if this size can be drawn; otherwise a sentence that lists the sizes that can."""
        ...

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        """The image, before `deadline` (of the event loop's clock).

        Raises one of PROVIDER_PROBLEMS, or Unavailable when too many calls are waiting already. No error quotes the
        provider, and each says whether this image `may_have_been_paid`.

        A call that may have been paid is not repeated, except once after a response without an image and without a
        reason. All calls count against the request's budget, which also records whether any may have been paid, and is
        closed by one of FAILS_EVERY_IMAGE.
        """
        ...

    async def check(self) -> str:
        """Tries address, key and model by a request that costs nothing. Returns `ok`, or what could not be tried.

        Raises ProviderUnavailable, with one sentence for the operator, for a setting that cannot be used.
        """
        ...


class ContentRefused(ApiError):
    status, title, code = 400, "Bad Request", "content_policy_violation"
    detail = "The provider refuses to draw this prompt"


class NoImageReturned(ApiError):
    status, title, code = 502, "Bad Gateway", "no_image_returned"
    detail = "The provider returned no picture and no reason"
    is_worth_repeating = True


class ProviderFailed(ApiError):
    status, title, code = 502, "Bad Gateway", "provider_failed"
    detail = "The provider failed"
    is_worth_repeating = True


class ProviderTimeout(ApiError):
    status, title, code = 504, "Gateway Timeout", "provider_timeout"
    detail = "The provider took too long"
    is_worth_repeating = True


class ProviderUnavailable(Unavailable):
    code = "provider_unavailable"
    detail = "The provider cannot be used now"


class ProviderUnusable(ProviderUnavailable):
    """Only the operator can mend it: the key, a permission, the model's name or the quota."""

    is_worth_repeating = False


FAILS_EVERY_IMAGE = (ContentRefused, ProviderUnusable)
"""What a provider refuses one image of a request for, it refuses each of them for."""


PROVIDER_PROBLEMS = (ContentRefused, NoImageReturned, ProviderFailed, ProviderTimeout, ProviderUnavailable)
