"""Google's Gemini image models, by their HTTP interface: https://ai.google.dev/api/generate-content."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from app.core.pool import BoundedPool
from app.providers import ContentRefused, NoImageReturned, Order, Picture, ProviderUnavailable, Size
from app.providers.answers import (
    OK,
    TOO_MANY,
    UNAVAILABLE,
    Answer,
    Unreadable,
    failing_if_unreadable,
    is_json,
    read_picture,
)
from app.providers.purchase import Again, Purchase
from app.providers.upstream import Upstream, checked_key, not_now, unexpected, unusable

GEMINI_SIZES = """
    256x256=1:1/1K, 512x512=1:1/1K, 1024x1024=1:1/1K, 2048x2048=1:1/2K, 4096x4096=1:1/4K,
    1536x1024=3:2/1K, 1920x1280=3:2/2K, 1024x1536=2:3/1K, 1280x1920=2:3/2K,
    1024x768=4:3/1K, 2048x1536=4:3/2K, 768x1024=3:4/1K, 1536x2048=3:4/2K,
    1280x1024=5:4/1K, 1024x1280=4:5/1K, 1080x1350=4:5/1K,
    1280x720=16:9/1K, 1920x1080=16:9/2K, 3840x2160=16:9/4K, 720x1280=9:16/1K, 1080x1920=9:16/2K, 2160x3840=9:16/4K,
    1344x576=21:9/1K, 2520x1080=21:9/2K
"""
"""What callers usually ask for, and what a model can draw for it. 1792x1024 is not there: no model has that shape."""

_ENTRY = re.compile(r"\s*([1-9]\d{1,3})x([1-9]\d{1,3})\s*=\s*([1-9]\d?):([1-9]\d?)/([124]K)\s*", re.ASCII)
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s", re.ASCII)

_REFUSALS = {
    "SAFETY",
    "IMAGE_SAFETY",
    "PROHIBITED_CONTENT",
    "IMAGE_PROHIBITED_CONTENT",
    "BLOCKLIST",
    "SPII",
    "RECITATION",
    "IMAGE_RECITATION",
}
_UNSPECIFIED = {None, "", "BLOCKED_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED"}
_FOR_THE_OPERATOR = {401, 402, 403, 404}  # key, billing, permission, and a model that is no more
_KEY_REFUSED = {401, 403}
_BAD_REQUEST, _NOT_FOUND = 400, 404


@dataclass(frozen=True, slots=True)
class Frame:
    """What Gemini is asked for: a ratio such as `16:9`, and how large: `1K`, `2K` or `4K`."""

    aspect_ratio: str
    image_size: str


def parse_frames(text: str) -> dict[Size, Frame]:
    """The table written as `1024x1024=1:1/1K, 1536x1024=3:2/1K`.

    Raises ValueError for what cannot be read, and for a size that is not exactly of its ratio: it would be distorted.
    """
    frames: dict[Size, Frame] = {}
    for number, entry in enumerate(text.split(","), 1):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(f"entry {number} must look like 1536x1024=3:2/1K")
        width, height, across, down = map(int, match.groups()[:4])
        if width * down != height * across:
            raise ValueError(f"entry {number} has a size that is not exactly of its ratio")
        frames[Size(width, height)] = Frame(f"{across}:{down}", match[5])
    return frames


class GeminiProvider:
    """Draws with one Gemini model. Every drawing costs, and no two are alike."""

    name = "gemini"
    is_deterministic = False

    def __init__(
        self,
        upstream: Upstream,
        pool: BoundedPool,
        *,
        api_key: SecretStr,
        base_url: str,
        api_version: str,
        model: str,
        frames: Mapping[Size, Frame],
    ) -> None:
        """`pool` decodes: with a queue as long as the calls that `upstream` allows, nothing paid for is thrown away."""
        self._upstream = upstream
        self._pool = pool
        self._api_key = checked_key(api_key)
        self._model_url = f"{base_url.rstrip('/')}/{quote(api_version, safe='')}/models/{quote(model, safe='')}"
        self._url = httpx2.URL(f"{self._model_url}:generateContent")
        self._frames = frames

    def refusal(self, size: Size) -> str | None:
        return None if size in self._frames else f"Must be one of {', '.join(map(str, self._frames))}"

    async def draw(self, order: Order, *, deadline: float) -> Picture:
        return await self._upstream.draw(partial(self._try, order), budget=order.budget, deadline=deadline)

    async def check(self) -> str:
        answer = await self._upstream.look(httpx2.Request("GET", self._model_url, headers=self._headers))
        if answer is None:
            raise ProviderUnavailable("GEMINI_BASE_URL cannot be reached")
        if answer.status != OK:
            raise ProviderUnavailable(_why_unusable(answer))
        if not is_json(answer.content):
            raise ProviderUnavailable("GEMINI_BASE_URL does not answer as Gemini does")
        return "ok"

    async def _try(self, order: Order, purchase: Purchase) -> Picture:
        async with self._upstream.exchange(self._request(order), purchase) as answer:
            if answer.status != OK:
                raise _trouble(answer)
            with failing_if_unreadable(self.name, answer):
                return await self._pool.run(partial(_develop, answer.content, order.size))

    def _request(self, order: Order) -> httpx2.Request:
        frame = self._frames[order.size]
        image = {"aspectRatio": frame.aspect_ratio, "imageSize": frame.image_size}
        body = {
            "contents": [{"role": "user", "parts": [{"text": order.prompt}]}],
            "generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": image},
        }
        return httpx2.Request("POST", self._url, headers=self._headers, json=body)

    @property
    def _headers(self) -> Mapping[str, str]:
        # In a header: an address is what gets into logs. And no compression, which could hide any number of bytes.
        return {"x-goog-api-key": self._api_key.get_secret_value(), "Accept-Encoding": "identity"}


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, val_json_bytes="base64", hide_input_in_errors=True)


class _Blob(_Wire):
    data: bytes


class _Part(_Wire):
    inline_data: _Blob | None = None
    thought: bool | None = None


class _Content(_Wire):
    parts: list[_Part] | None = None


class _Candidate(_Wire):
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(_Wire):
    block_reason: str | None = None


class _Generated(_Wire):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None

    @property
    def is_refused(self) -> bool:
        blocked = self.prompt_feedback is not None and self.prompt_feedback.block_reason not in _UNSPECIFIED
        return blocked or any(candidate.finish_reason in _REFUSALS for candidate in self.candidates or [])

    @property
    def image(self) -> bytes | None:
        """The last one that is not a sketch of the model's thinking."""
        contents = [candidate.content for candidate in self.candidates or [] if candidate.content]
        parts = [part for content in contents for part in content.parts or []]
        images = [part.inline_data.data for part in parts if part.inline_data and not part.thought]
        return images[-1] if images else None


def _develop(content: bytearray, size: Size) -> Picture:
    generated = _read(content)
    if generated is None:
        raise Unreadable
    if generated.is_refused:
        raise ContentRefused
    if generated.image is None:
        raise Again(NoImageReturned(), may_pay_twice=True)
    return read_picture(generated.image, size)


def _read(content: bytearray) -> _Generated | None:
    try:
        return _Generated.model_validate_json(content)
    except ValidationError:
        return None


class _Violation(_Wire):
    quota_id: str = ""


class _Detail(_Wire):
    reason: str = ""
    retry_delay: str = ""
    violations: list[_Violation] = Field(default_factory=list)


class _Error(_Wire):
    status: str = ""
    details: list[_Detail] = Field(default_factory=list)


class _Failed(_Wire):
    error: _Error = Field(default_factory=_Error)


def _trouble(answer: Answer) -> Exception:
    error, status = _read_error(answer.content), answer.status
    if status in {TOO_MANY, UNAVAILABLE}:
        return _not_now(error, status)
    if status in _FOR_THE_OPERATOR or (
        status == _BAD_REQUEST and (_key_is_bad(error) or error.status == "FAILED_PRECONDITION")
    ):
        return unusable(GeminiProvider.name, status=status, reason="credentials, permission or model")
    return unexpected(GeminiProvider.name, answer)


def _why_unusable(answer: Answer) -> str:
    if answer.status in _KEY_REFUSED or (answer.status == _BAD_REQUEST and _key_is_bad(_read_error(answer.content))):
        return "GEMINI_API_KEY is refused"
    if answer.status == _NOT_FOUND:
        return "GEMINI_MODEL names no model that there is at GEMINI_BASE_URL"
    return f"GEMINI_BASE_URL answers with {answer.status}"


def _key_is_bad(error: _Error) -> bool:
    return any(detail.reason == "API_KEY_INVALID" for detail in error.details)


def _not_now(error: _Error, status: int) -> Exception:
    """Per minute, or busy: as soon as it tells. Per day: not with this request any more."""
    if any("PerDay" in violation.quota_id for detail in error.details for violation in detail.violations):
        return unusable(GeminiProvider.name, status=status, reason="quota")
    told = [float(match[1]) for detail in error.details if (match := _DURATION.fullmatch(detail.retry_delay))]
    return not_now(max(told, default=None))


def _read_error(content: bytearray) -> _Error:
    try:
        return _Failed.model_validate_json(content).error
    except ValidationError:
        return _Error()
