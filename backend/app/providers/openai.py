"""Any endpoint that takes OpenAI's `POST /images/generations`: https://platform.openai.com/docs/api-reference/images."""

import re
from collections.abc import Collection, Mapping
from functools import partial
from urllib.parse import quote

import httpx2
from pydantic import SecretStr

from app.core.logs import logger
from app.core.pool import BoundedPool
from app.providers import (
    CallBudget,
    ContentRefused,
    DrawRequest,
    Image,
    NoImageReturned,
    ProviderFailed,
    ProviderUnavailable,
    Size,
)
from app.providers.downloads import Resolve, download_request, resolve
from app.providers.remote import UNCOMPRESSED, RemoteProvider, checked_key
from app.providers.responses import (
    KEY_REFUSED,
    OK,
    SERVER_ERROR,
    TOO_MANY,
    Base64,
    Message,
    Response,
    parse,
    read_image,
    read_message,
    status_error,
)
from app.providers.retries import ImageCalls, Retry
from app.providers.upstream import Upstream

OPENAI_SIZES = "1024x1024, 1536x1024, 1024x1536"

_SIZE = re.compile(r"\s*([1-9]\d{1,3})x([1-9]\d{1,3})\s*", re.ASCII)
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)

_REFUSALS = {"content_policy_violation", "moderation_blocked", "content_filter", "contentFilter"}
_QUOTA_SPENT = {"insufficient_quota", "billing_hard_limit_reached"}
_NOT_IMPLEMENTED = 501


def parse_sizes(text: str) -> list[Size]:
    """The sizes written as `1024x1024, 1536x1024`. Raises ValueError."""
    matches = [_SIZE.fullmatch(entry) for entry in text.split(",")]
    for number, match in enumerate(matches, 1):
        if match is None:
            raise ValueError(f"entry {number} must look like 1536x1024")
    return [Size(int(match[1]), int(match[2])) for match in matches if match]


class OpenAIProvider(RemoteProvider):
    """Draws with one model of an OpenAI-compatible endpoint."""

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
        resolve: Resolve = resolve,
    ) -> None:
        super().__init__(upstream, pool, sizes=sizes)
        self._api_key = api_key and checked_key(api_key)
        self._base_url = base_url.rstrip("/")
        self._url = httpx2.URL(f"{self._base_url}/images/generations")
        self._model = model
        self._resolve = resolve

    async def check(self) -> str:
        """Some endpoints have an address for each model, some a list of them, and some neither."""
        of_model = await self._probe(f"/models/{quote(self._model, safe='')}")
        listed = of_model if _model_names(of_model) == {self._model} else await self._probe("/models")
        names = _model_names(listed)
        if self._model in names:
            return "ok"
        if names:
            raise ProviderUnavailable("OPENAI_MODEL is none of the models that OPENAI_BASE_URL lists")
        return "it answers, but lists no models: key and model were not tried"

    async def _probe(self, path: str) -> Response:
        response = await self._upstream.probe(httpx2.Request("GET", f"{self._base_url}{path}", headers=self._headers))
        if response is None:
            raise ProviderUnavailable("OPENAI_BASE_URL cannot be reached")
        if response.status in KEY_REFUSED:
            raise ProviderUnavailable("OPENAI_API_KEY is missing or refused")
        if response.status == TOO_MANY or (response.status >= SERVER_ERROR and response.status != _NOT_IMPLEMENTED):
            raise ProviderUnavailable(f"OPENAI_BASE_URL answers with {response.status}")
        return response

    async def _attempt(self, request: DrawRequest, calls: ImageCalls) -> Image:
        body = {"model": self._model, "prompt": request.prompt, "n": 1, "size": str(request.size)}
        sent = httpx2.Request("POST", self._url, headers=self._headers, json=body)
        drawn = await self._send(sent, partial(_decode, size=request.size), self._error, calls)
        if isinstance(drawn, Image):
            return drawn
        # The image is drawn and paid: a failed download repeats the download alone, which costs nothing.
        free = ImageCalls(CallBudget(), calls.deadline)
        return await self._upstream.retry(partial(self._download, drawn, request.size), free)

    async def _download(self, url: str, size: Size) -> Image:
        request = await download_request(url, endpoint=self._url, resolve=self._resolve)
        if request is None:
            logger.error("provider_address_refused", provider=self.name)
            raise ProviderFailed
        return await self._send(
            request, lambda content: read_image(bytes(content), size), partial(status_error, self.name)
        )

    @property
    def _headers(self) -> Mapping[str, str]:
        credential = {"Authorization": f"Bearer {self._api_key.get_secret_value()}"} if self._api_key else {}
        return {**UNCOMPRESSED, **credential}

    def _api_error(self, response: Response) -> Exception | None:
        failed = parse(_Failed, response.content)
        named = {str(failed.error.code), str(failed.error.type)} if failed else set()
        if named & _REFUSALS:
            return ContentRefused()
        return self._operator_error(response, "quota") if named & _QUOTA_SPENT else None

    def _retry_after_seconds(self, response: Response) -> float | None:
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1)):
            if _SECONDS.fullmatch(response.headers.get(name, "")):
                return float(response.headers[name]) * unit
        return None


class _GeneratedImage(Message):
    b64_json: Base64 | None = None
    url: str | None = None


class _Generated(Message):
    data: list[_GeneratedImage] | None = None


class _Model(Message):
    id: str


class _Models(Message):
    data: list[_Model]


class _Error(Message):
    code: str | int | None = None
    type: str | None = None


class _Failed(Message):
    error: _Error


def _model_names(response: Response) -> set[str]:
    """The names in a response about one model or about all; none in any other."""
    if response.status != OK:
        return set()
    if (model := parse(_Model, response.content)) is not None:
        return {model.id}
    models = parse(_Models, response.content)
    return {model.id for model in models.data} if models else set()


def _decode(content: bytearray, size: Size) -> Image | str:
    """The image, or its URL."""
    for image in read_message(_Generated, content).data or []:
        if image.b64_json is not None:
            return read_image(image.b64_json, size)
        if image.url is not None:
            return image.url
    raise Retry(NoImageReturned(), may_pay_twice=True)
