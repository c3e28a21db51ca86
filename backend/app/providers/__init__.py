"""The port to whatever draws pictures, the values that cross it, and what can go wrong behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from app.core.errors import ApiError, Unavailable


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be drawn."""

    prompt: str
    size: Size


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
        provider's.
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

    @property
    def headers(self) -> Mapping[str, str]:
        return {"x-should-retry": "false"}


class NoImageReturned(ApiError):
    status, title, code = 502, "Bad Gateway", "no_image_returned"
    detail = "The provider returned no picture and no reason"


class ProviderFailed(ApiError):
    status, title, code = 502, "Bad Gateway", "provider_failed"
    detail = "The provider failed; try again"


class ProviderTimeout(ApiError):
    status, title, code = 504, "Gateway Timeout", "provider_timeout"
    detail = "The provider took too long"


class ProviderUnavailable(Unavailable):
    code = "provider_unavailable"
    detail = "The provider cannot be used now"


PROVIDER_PROBLEMS = (ContentRefused, NoImageReturned, ProviderFailed, ProviderTimeout, ProviderUnavailable)
"""All of them."""
