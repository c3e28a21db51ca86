"""Any endpoint that takes OpenAI's `POST /images/generations`, and with images `POST /images/edits`:
https://platform.openai.com/docs/api-reference/images.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import httpx2
from pydantic import AliasChoices, Field, SecretStr

from app.core.logs import logger
from app.core.pinning import REDIRECTS_MAX, Resolve
from app.core.pool import BoundedPool
from app.providers import (
    CallBudget,
    CallTally,
    ContentRefused,
    DrawRequest,
    Image,
    ProviderFailed,
    ProviderUnavailable,
    Size,
)
from app.providers.bodies import multipart
from app.providers.downloads import Redirect, download_request, redirect_of
from app.providers.encodings import is_data_url
from app.providers.inputs import CallLimits
from app.providers.openai_events import ImageEvents
from app.providers.operator_headers import checked_headers
from app.providers.reachability import Unreachable
from app.providers.remote import UNCOMPRESSED, RemoteProvider, checked_key, joined
from app.providers.responses import (
    BAD_REQUEST,
    KEY_REFUSED,
    NOT_FOUND,
    OK,
    SERVER_ERROR,
    TOO_MANY,
    AnyError,
    Lenient,
    Message,
    NoImage,
    Response,
    StatedError,
    is_image,
    operator_error,
    parse,
    read_base64,
    read_image,
    read_message,
    stated_status,
    status_error,
)
from app.providers.retries import ImageCalls
from app.providers.upstream import Upstream

OPENAI_SIZES = "1024x1024, 1536x1024, 1024x1536"

_SIZE = re.compile(r"\s*([1-9]\d{1,3})x([1-9]\d{1,3})\s*", re.ASCII)
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)

_INPUT_LIMITS = CallLimits(image_bytes_max=49_999_999, bytes_max=16 * 49_999_999)
_REFUSALS = {
    "content_policy_violation",
    "moderation_blocked",
    "content_filter",
    "contentFilter",
    "ResponsibleAIPolicyViolation",
}
_QUOTA_SPENT = {"insufficient_quota", "billing_hard_limit_reached"}
_UNAUTHORIZED, _FORBIDDEN, _NOT_IMPLEMENTED = 401, 403, 501
_STATUSES = {
    **dict.fromkeys(_REFUSALS, BAD_REQUEST),
    **dict.fromkeys(_QUOTA_SPENT, TOO_MANY),
    "invalid_api_key": _UNAUTHORIZED,
    "authentication_error": _UNAUTHORIZED,
    "permission_error": _FORBIDDEN,
    "model_not_found": NOT_FOUND,
    "DeploymentNotFound": NOT_FOUND,
    "rate_limit_exceeded": TOO_MANY,
    "invalid_request_error": BAD_REQUEST,
}
"""The statuses with which OpenAI sends these errors, for endpoints that send them with a 200."""
_TAKE_BACKGROUND = {"opaque": {"background", "transparent"}, "transparent": {"transparent"}}
"""The capabilities of which one is needed."""


def parse_sizes(text: str) -> list[Size]:
    """The sizes written as `1024x1024, 1536x1024`. Raises ValueError."""
    matches = [_SIZE.fullmatch(entry) for entry in text.split(",")]
    for number, match in enumerate(matches, 1):
        if match is None:
            raise ValueError(f"entry {number} must look like 1536x1024")
    return [Size(int(match[1]), int(match[2])) for match in matches if match]


class OpenAIProvider(RemoteProvider):
    """Draws with one model of an OpenAI-compatible endpoint.

    `headers` and `query` are sent with each call of the endpoint, and never with a download.

    `capabilities` name what is passed on of a request, since an endpoint refuses what its model lacks: `quality`;
    `background` where it is opaque, `transparent` for either; `compression`, and the format with it; `stream` for
    sketches, which a request may ask for.
    """

    name = "openai"

    def __init__(
        self,
        upstream: Upstream,
        pool: BoundedPool,
        *,
        api_key: SecretStr | None,
        base_url: str,
        model: str,
        sizes: Collection[Size],
        headers: Mapping[str, SecretStr] | None = None,
        query: Mapping[str, str] | None = None,
        capabilities: frozenset[str] = frozenset(),
        resolve: Resolve | None = None,
    ) -> None:
        super().__init__(upstream, pool, sizes=sizes, input_limits=_INPUT_LIMITS)
        self._api_key = api_key and checked_key(api_key)
        self._extra_headers = checked_headers(headers or {}, with_key=api_key is not None)
        self._joined = partial(joined, base_url, query=query)
        self._url, self._edits_url = self._joined("/images/generations"), self._joined("/images/edits")
        self._model = model
        self._capabilities = capabilities
        self._resolve = resolve or upstream.look_up

    async def check(self) -> str:
        """Some endpoints have an address for each model, some a list of them, and some neither."""
        of_model = await self._about_models(f"/models/{quote(self._model, safe='')}")
        listed = of_model if _model_names(of_model) == {self._model} else await self._about_models("/models")
        names = _model_names(listed)
        if self._model in names:
            return "ok"
        if names:
            raise ProviderUnavailable("{model} is none of the models that {base_url} lists")
        return "it answers, but lists no models: key and model were not tried"

    async def _about_models(self, path: str) -> Response:
        try:
            response = await self._probe(self._joined(path), self._headers)
        except Unreachable as reason:
            raise ProviderUnavailable(f"{{base_url}} {reason.sentence}") from None
        if response.status in KEY_REFUSED:
            raise ProviderUnavailable("{key} is missing or refused")
        if response.status == TOO_MANY or (response.status >= SERVER_ERROR and response.status != _NOT_IMPLEMENTED):
            raise ProviderUnavailable(f"{{base_url}} answers with {response.status}")
        return response

    async def _attempt(self, request: DrawRequest, calls: ImageCalls) -> Image:
        sent = self._request(request)
        take_event = ImageEvents(request, self._pool).take if self._streams(request) else None
        drawn = await self._send(sent, partial(_decode, size=request.size), self._error, calls, take_event)
        if not isinstance(drawn, Image):
            # The image is drawn and paid: a failed download repeats the download alone, which costs nothing.
            free = ImageCalls(CallBudget(), calls.deadline, tally=CallTally())
            drawn = await self._upstream.retry(partial(self._download, drawn, request.size), free)
        is_as_asked = "compression" in self._capabilities and drawn.format == request.format != "png"
        return replace(drawn, compression=request.compression) if is_as_asked else drawn

    def _request(self, request: DrawRequest) -> httpx2.Request:
        fields = self._fields(request)
        if not request.images:
            return httpx2.Request("POST", self._url, headers=self._headers, json=fields)
        # OpenAI takes either name; some servers take one image as `image` alone, or several as `image[]` alone.
        name = "image" if len(request.images) == 1 else "image[]"
        files = [(name, each) for each in request.images]
        if request.mask is not None:
            files.append(("mask", request.mask))
        return multipart(fields, files).request(self._edits_url, self._headers)

    def _fields(self, request: DrawRequest) -> Mapping[str, object]:
        can, options = self._capabilities, dict[str, object]()
        if "quality" in can and request.quality != "auto":
            options["quality"] = request.quality
        if request.background != "auto" and can & _TAKE_BACKGROUND[request.background]:
            options["background"] = request.background
        if "compression" in can and request.format is not None:
            options["output_format"] = request.format
            if request.compression is not None and request.format != "png":
                options["output_compression"] = request.compression
        if self._streams(request):
            options |= {"stream": True, "partial_images": request.partials}
        return {"model": self._model, "prompt": request.prompt, "n": 1, "size": str(request.size), **options}

    def _streams(self, request: DrawRequest) -> bool:
        return "stream" in self._capabilities and request.partials > 0 and request.on_partial is not None

    async def _download(self, url: str, size: Size) -> Image:
        for _ in range(1 + REDIRECTS_MAX):
            request = await download_request(url, endpoint=self._url, resolve=self._resolve)
            if request is None:
                logger.error("provider_address_refused", provider=self.name)
                raise ProviderFailed
            try:
                return await self._send(
                    request, lambda content: read_image(bytes(content), size), partial(self._download_error, url)
                )
            except Redirect as redirect:
                url = redirect.url
        logger.error("provider_redirects_too_often", provider=self.name)
        raise ProviderFailed

    def _download_error(self, url: str, response: Response) -> Exception:
        return redirect_of(response, self._url.join(url)) or status_error(self.name, response, "failed")

    @property
    def _headers(self) -> Mapping[str, str]:
        credential = {"Authorization": f"Bearer {self._api_key.get_secret_value()}"} if self._api_key else {}
        extra = {name: value.get_secret_value() for name, value in self._extra_headers.items()}
        return {**UNCOMPRESSED, **extra, **credential}

    def _api_error(self, response: Response) -> Exception | None:
        failed = parse(_Failed, response.content)
        names = set(map(str, failed.error.names)) if failed and failed.error else set()
        if names & _REFUSALS:
            return ContentRefused()
        return operator_error(status=response.status, reason="quota") if names & _QUOTA_SPENT else None

    def _retry_after_seconds(self, response: Response) -> float | None:
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1)):
            if _SECONDS.fullmatch(response.headers.get(name, "")):
                return float(response.headers[name]) * unit
        return None


class _Code(Message):
    code: Lenient[str] = None


class _Error(Message):
    code: Lenient[str | int] = None
    type: Lenient[str] = None
    inner_error: AnyError[_Code] = Field(None, validation_alias=AliasChoices("inner_error", "innererror"))
    """Azure's, in both spellings."""

    @property
    def names(self) -> tuple[str | int | None, ...]:
        return self.code, self.type, self.inner_error.code if self.inner_error else None


class _Failed(Message):
    error: AnyError[_Error] = None


class _GeneratedImage(Message):
    b64_json: Lenient[str] = None
    url: Lenient[str] = None


class _Generated(_Failed):
    b64_json: Lenient[str] = None
    """Of the event that ends a stream."""
    data: list[Lenient[_GeneratedImage]] | None = None
    images: list[Lenient[_GeneratedImage]] | None = None
    """SiliconFlow's name for it."""


class _Model(Message):
    id: str


class _Models(Message):
    data: list[_Model]


def _model_names(response: Response) -> set[str]:
    """The names in a response about one model or about all; none in any other."""
    if response.status != OK:
        return set()
    if (model := parse(_Model, response.content)) is not None:
        return {model.id}
    models = parse(_Models, response.content)
    return {model.id for model in models.data} if models else set()


def _decode(content: bytes | bytearray, size: Size) -> Image | str:
    """The image, or its URL."""
    if is_image(content):
        return read_image(bytes(content), size)
    generated = read_message(_Generated, content)
    streamed = _GeneratedImage(b64_json=generated.b64_json)
    for image in [streamed, *(generated.data or []), *(generated.images or [])]:
        if image and image.b64_json:
            return read_base64(image.b64_json, size)
        if image and image.url:
            return read_base64(image.url, size) if is_data_url(image.url) else image.url
    if generated.error is not None:
        raise StatedError(stated_status(*generated.error.names, statuses=_STATUSES))
    raise NoImage
