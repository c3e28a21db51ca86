"""Google's Gemini image models, by their HTTP interface: https://ai.google.dev/api/generate-content."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from urllib.parse import quote

import httpx2
from pydantic import ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from app.core.images import MEDIA_TYPES
from app.core.pool import BoundedPool
from app.providers import ContentRefused, DrawRequest, Image, ProviderUnavailable, Size
from app.providers.bodies import json_body
from app.providers.inputs import CallLimits
from app.providers.reachability import Unreachable
from app.providers.remote import UNCOMPRESSED, RemoteProvider, checked_key, joined
from app.providers.responses import (
    BAD_REQUEST,
    KEY_REFUSED,
    NOT_FOUND,
    OK,
    TOO_MANY,
    UNAVAILABLE,
    AnyError,
    Lenient,
    Message,
    NoImage,
    Response,
    StatedError,
    is_image,
    is_json,
    operator_error,
    parse,
    read_base64,
    read_image,
    read_message,
    stated_status,
)
from app.providers.retries import ImageCalls
from app.providers.upstream import Upstream

GEMINI_SIZES = """
    256x256=1:1/1K, 512x512=1:1/1K, 1024x1024=1:1/1K, 2048x2048=1:1/2K, 4096x4096=1:1/4K,
    1536x1024=3:2/1K, 1920x1280=3:2/2K, 1024x1536=2:3/1K, 1280x1920=2:3/2K,
    1024x768=4:3/1K, 2048x1536=4:3/2K, 768x1024=3:4/1K, 1536x2048=3:4/2K,
    1280x1024=5:4/1K, 1024x1280=4:5/1K, 1080x1350=4:5/1K,
    1280x720=16:9/1K, 1920x1080=16:9/2K, 3840x2160=16:9/4K, 720x1280=9:16/1K, 1080x1920=9:16/2K, 2160x3840=9:16/4K,
    1344x576=21:9/1K, 2520x1080=21:9/2K
"""
"""The sizes that clients usually request, and what a model draws for each. No model has the shape of 1792x1024."""

_ENTRY = re.compile(r"\s*([1-9]\d{1,3})x([1-9]\d{1,3})\s*=\s*([1-9]\d?):([1-9]\d?)/([124]K)\s*", re.ASCII)
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s", re.ASCII)

# Of 20 MB for a request: base64 makes a third more of it, and the prompt has its place.
_INPUT_LIMITS = CallLimits(image_bytes_max=7_000_000, bytes_max=14_500_000)
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
_STATUSES = {
    "INVALID_ARGUMENT": BAD_REQUEST,
    "FAILED_PRECONDITION": BAD_REQUEST,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": NOT_FOUND,
    "RESOURCE_EXHAUSTED": TOO_MANY,
    "UNAVAILABLE": UNAVAILABLE,
}
"""The statuses with which Google sends these errors, for gateways that send them with a 200."""
_UNSPECIFIED = {None, "", "BLOCKED_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED"}


@dataclass(frozen=True, slots=True)
class Frame:
    """What is requested of Gemini: a ratio such as `16:9`, and a size of `1K`, `2K` or `4K`."""

    aspect_ratio: str
    image_size: str


def parse_frames(text: str) -> dict[Size, Frame]:
    """The table written as `1024x1024=1:1/1K, 1536x1024=3:2/1K`.

    Raises ValueError for an unreadable entry, and for a size not exactly of its ratio: the image would be distorted.
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


class GeminiProvider(RemoteProvider):
    """Draws with one Gemini model."""

    name = "gemini"

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
        super().__init__(upstream, pool, sizes=frames, input_limits=_INPUT_LIMITS)
        self._api_key = checked_key(api_key)
        path = f"/{quote(api_version, safe='')}/models/{quote(model, safe='')}"
        self._model_url, self._url = joined(base_url, path), joined(base_url, f"{path}:generateContent")
        self._frames = frames

    async def check(self) -> str:
        try:
            response = await self._probe(self._model_url, self._headers)
        except Unreachable as reason:
            raise ProviderUnavailable(f"{{base_url}} {reason.sentence}") from None
        if response.status != OK:
            raise ProviderUnavailable(_why_unusable(response))
        if not is_json(response.content):
            raise ProviderUnavailable("{base_url} does not answer as Gemini does")
        return "ok"

    async def _attempt(self, request: DrawRequest, calls: ImageCalls) -> Image:
        decode = partial(_decode, size=request.size, identify=calls.identify)
        return await self._send(self._request(request), decode, self._error, calls)

    def _request(self, request: DrawRequest) -> httpx2.Request:
        frame = self._frames[request.size]
        image = {"aspectRatio": frame.aspect_ratio, "imageSize": frame.image_size}
        inputs = [{"inlineData": {"mimeType": MEDIA_TYPES[each.format], "data": each.blob}} for each in request.images]
        body = {
            "contents": [{"role": "user", "parts": [*inputs, {"text": request.prompt}]}],
            "generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": image},
        }
        if inputs:
            return json_body(body).request(self._url, self._headers)
        return httpx2.Request("POST", self._url, headers=self._headers, json=body)

    @property
    def _headers(self) -> Mapping[str, str]:
        # The key is in a header and not in the URL, since URLs get into logs.
        return {"x-goog-api-key": self._api_key.get_secret_value(), **UNCOMPRESSED}

    def _api_error(self, response: Response) -> Exception | None:
        error = _read_error(response)
        if response.status in {TOO_MANY, UNAVAILABLE} and error.is_daily_quota:
            return operator_error(status=response.status, reason="quota")
        if response.status == BAD_REQUEST and (error.is_bad_key or error.status == "FAILED_PRECONDITION"):
            return operator_error(status=response.status, reason="credentials, permission or model")
        return None

    def _retry_after_seconds(self, response: Response) -> float | None:
        details = _read_error(response).details
        delays = [float(match[1]) for each in details if (match := _DURATION.fullmatch(each.retry_delay))]
        return max(delays, default=None)


class _Message(Message):
    """Its fields are named as in Google's JSON, or as in the protocol behind it: `inlineData`, `inline_data`."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class _Blob(_Message):
    data: Lenient[str] = None


class _Part(_Message):
    inline_data: Lenient[_Blob] = None
    thought: Lenient[bool] = None


class _Content(_Message):
    parts: list[Lenient[_Part]] | None = None


class _Candidate(_Message):
    content: Lenient[_Content] = None
    finish_reason: Lenient[str] = None


class _Feedback(_Message):
    block_reason: Lenient[str] = None


class _Violation(_Message):
    quota_id: str = ""


class _Detail(_Message):
    reason: str = ""
    retry_delay: str = ""
    violations: list[_Violation] = Field(default_factory=list)


class _Error(_Message):
    code: Lenient[int | str] = None
    status: Lenient[str] = None
    details: list[_Detail] = Field(default_factory=list)

    @property
    def is_bad_key(self) -> bool:
        return any(detail.reason == "API_KEY_INVALID" for detail in self.details)

    @property
    def is_daily_quota(self) -> bool:
        """Whether the quota of the day is spent, so that waiting seconds does not help."""
        return any("PerDay" in violation.quota_id for detail in self.details for violation in detail.violations)


class _Failed(_Message):
    error: AnyError[_Error] = None


class _Generated(_Failed):
    candidates: list[Lenient[_Candidate]] | None = None
    prompt_feedback: Lenient[_Feedback] = None
    response_id: Lenient[str] = None

    @property
    def is_refused(self) -> bool:
        blocked = self.prompt_feedback is not None and self.prompt_feedback.block_reason not in _UNSPECIFIED
        return blocked or any(str(each.finish_reason).upper() in _REFUSALS for each in self.candidates or [] if each)

    @property
    def image(self) -> str | None:
        """The last image in base64, and a sketch of the model's thinking only where there is nothing else."""
        contents = [each.content for each in self.candidates or [] if each and each.content]
        parts = [part for content in contents for part in content.parts or [] if part]
        images = [(not part.thought, part.inline_data.data) for part in parts if part.inline_data]
        finals_last = sorted(((final, data) for final, data in images if data), key=itemgetter(0))
        return finals_last[-1][1] if finals_last else None


def _decode(content: bytes | bytearray, size: Size, identify: Callable[[str | None], None]) -> Image:
    if is_image(content):
        return read_image(bytes(content), size)
    generated = read_message(_Generated, content)
    identify(generated.response_id)
    if generated.is_refused:
        raise ContentRefused
    image = generated.image
    if image is not None:
        return read_base64(image, size)
    if generated.error is not None:
        raise StatedError(stated_status(generated.error.code, generated.error.status, statuses=_STATUSES))
    raise NoImage


def _read_error(response: Response) -> _Error:
    failed = parse(_Failed, response.content)
    return (failed and failed.error) or _Error()


def _why_unusable(response: Response) -> str:
    if response.status in KEY_REFUSED or (response.status == BAD_REQUEST and _read_error(response).is_bad_key):
        return "{key} is refused"
    if response.status == NOT_FOUND:
        return "{model} names no model that there is at {base_url}"
    return f"{{base_url}} answers with {response.status}"
