"""The port to image providers: the values that cross it, and the errors that a provider raises."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from app.core.blobs import Blob
from app.core.errors import ApiError, Unavailable
from app.core.images import MEDIA_TYPES, ImageFormat

Background = Literal["auto", "opaque", "transparent"]
OnPartial = Callable[[int, bytes], None]
"""Takes a sketch: its place among the sketches of its image, from 0, and its bytes in whatever format they came."""
RouteFailure = Literal["unreachable", "unusable", "busy", "failed", "unreadable", "refused", "request", "no_slot"]
"""Why a provider returned no image, for the choice of what is tried next.

    unreachable  no connection, TLS or name: no byte of the last call was sent
    unusable     only the operator can mend it: key, permission, model, quota of the day
    busy         429 or 503: not now
    failed       an error of the provider, or a connection that was lost or silent after the call was sent
    unreadable   the response has no image, or one that cannot be read or has another shape
    refused      by the provider's content policy
    request      any other 4xx: the provider does not take the request
    no_slot      a bound of this process on calls
"""

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
class Repeats:
    """How many calls of one client request were repeats of failed ones."""

    count: int = 0


@dataclass(slots=True, eq=False)
class CallBudget:
    """The calls to a provider that one client request of an account may cost, over all its images.

    Each image has one call, and the repeats after a failure are counted for the request: `n` images cost at most
    `n + repeats_max` calls.
    """

    account_id: str = ""
    repeats: Repeats = field(default_factory=Repeats)
    """Shared with the budgets of the same client request at other routes."""
    closed_by: ApiError | None = None
    """The error of one image that each further image would fail with too: no further call is sent."""
    may_have_been_paid: bool = False
    """Whether a call was sent that the provider may charge for."""
    is_admitted: bool = False
    """Whether one of its images has had a slot of the provider, or a place in the line for one."""
    waiting: set[asyncio.Future[bool]] = field(default_factory=set)
    """Of each image in that line: whether it got a slot."""
    before_call: Callable[[], Awaitable[None]] | None = None
    """Awaited by each image that has a slot, before its first call. What it raises, an ApiError, ends the image."""

    def take_repeat(self, repeats_max: int) -> bool:
        """Counts one more call after a failed one, and returns True; or returns False where none is allowed."""
        if self.closed_by is not None or self.repeats.count >= repeats_max:
            return False
        self.repeats.count += 1
        return True

    def close(self, error: ApiError) -> None:
        """Lets no further call be sent: images that have none yet fail with this error, also those that wait."""
        self.closed_by = self.closed_by or error
        for each in self.waiting:
            if not each.done():
                each.set_result(False)


@dataclass(slots=True, eq=False)
class CallTally:
    """The calls to providers for one image. A provider adds its own when its `draw` ends, however it ends."""

    calls: int = 0
    """Those of which a byte was sent."""
    paid_calls: int = 0
    """Those of them that the provider may charge for."""
    interruption: RouteFailure = "failed"
    """What it failed of where something from outside, such as the deadline, has ended it."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image that goes in: whole, still, upright, without metadata."""

    blob: Blob
    format: ImageFormat
    size: Size


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """One image to draw, and the budget of the client request that it belongs to."""

    prompt: str
    size: Size
    quality: str = "auto"
    """Such as `high`; a hint for a provider that draws in one quality. `auto` leaves it to the provider."""
    background: Background = "auto"
    format: ImageFormat | None = None
    """Into which the image will be encoded: a provider may send it so."""
    compression: int | None = None
    """Of a JPEG or WebP, 0 to 100, as OpenAI counts it: 100 is the largest file; None leaves it to the encoder."""
    on_partial: OnPartial | None = field(default=None, compare=False, repr=False)
    """Called with each sketch that a provider sends before the image, where it can; a provider may send none."""
    partials: int = 0
    """How many sketches are asked for: 0 to 3."""
    budget: CallBudget = field(default_factory=CallBudget, compare=False, repr=False)
    """Shared by the images of one client request; by default an image has its own."""
    model: str = field(default="", compare=False, repr=False)
    """The name by which callers know the model, for an image that shows it."""
    images: Sequence[InputImage] = ()
    """Those that it is made from, in order."""
    mask: InputImage | None = None
    """A PNG of the size of the first of them, which may change where this one is transparent."""
    place: int = field(default=0, compare=False, repr=False)
    """Which image of its client request it is, from 0."""
    tally: CallTally = field(default_factory=CallTally, compare=False, repr=False)
    leave_unpaid_failures: bool = field(default=False, compare=False, repr=False)
    """Whether a failure that costs nothing is raised at once instead of being repeated or waited for: no connection,
    429, 503, no free slot of this process.
    """
    group: str = field(default="", compare=False, repr=False)
    """Where drawing costs nothing, the groups of all waiting requests take turns: see FairQueue."""


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of an image, of exactly the requested size."""

    content: bytes
    format: ImageFormat
    compression: int | None = field(default=None, compare=False)
    """With which it is encoded because it was asked for; None for an image that is encoded in another way."""
    provider_request_id: str | None = field(default=None, compare=False)
    """The provider's own id of the call, 1 to 200 visible ASCII characters; None where it sent none of that kind."""

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

        Raises a ProviderError, or what another image has closed the budget with. No error quotes the provider, and each
        says whether this image `may_have_been_paid`.

        A call that may have been paid is not repeated, except once after a response without an image and without a
        reason. All calls count in the request's tally and against its budget, which also records whether any may have
        been paid, and is closed by one of FAILS_EVERY_IMAGE.
        """
        ...

    async def check(self) -> str:
        """Tries address, key and model by a request that costs nothing. Returns `ok`, or what could not be tried.

        Raises ProviderUnavailable, with one sentence for the operator, for a setting that cannot be used; `{key}`,
        `{model}` and `{base_url}` in it stand for the names of those settings.
        """
        ...


class ProviderError(ApiError):
    """Any error of a drawing. A class has a usual `failure`, an instance may have another."""

    status, title, code = 502, "Bad Gateway", "provider_failed"
    detail = "The provider failed"
    is_worth_repeating = True
    failure: RouteFailure = "failed"
    provider_request_id: str | None = None
    """As in Image, of the last call; None where that had no response."""
    provider_status: int | None = None
    """The status of the last call's response; None where it had none."""

    def __init__(self, detail: str | None = None, *, failure: RouteFailure | None = None) -> None:
        super().__init__(detail)
        self.failure = failure or self.failure


class ContentRefused(ProviderError):
    status, title, code = 400, "Bad Request", "content_policy_violation"
    detail = "The provider refuses to draw this prompt"
    failure = "refused"
    is_worth_repeating = False


class NoImageReturned(ProviderError):
    code = "no_image_returned"
    detail = "The provider returned no image and no reason"
    failure = "unreadable"


class ProviderFailed(ProviderError):
    """Any other way of failing."""


class ProviderTimeout(ProviderError):
    status, title, code = 504, "Gateway Timeout", "provider_timeout"
    detail = "The provider took too long"


class ProviderUnavailable(Unavailable, ProviderError):
    code = "provider_unavailable"
    detail = "The provider cannot be used now"
    failure = "busy"


class ProviderUnusable(ProviderUnavailable):
    """Only the operator can mend it: the key, a permission, the model's name or the quota."""

    failure = "unusable"
    is_worth_repeating = False
    reason: str = ""
    """For the operator, in our words: never the provider's."""


class NoFreeSlot(Unavailable, ProviderError):
    """A queue of this process is full."""

    failure = "no_slot"


FAILS_EVERY_IMAGE = (ContentRefused, ProviderUnusable)
"""What a provider refuses one image of a request for, it refuses each of them for."""


PROVIDER_PROBLEMS = (ContentRefused, NoImageReturned, ProviderFailed, ProviderTimeout, ProviderUnavailable)
