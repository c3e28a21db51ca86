"""Any endpoint that takes OpenAI's `POST /images/generations`: https://platform.openai.com/docs/api-reference/images."""

import asyncio
import random
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from app.core.logs import logger
from app.core.pool import BoundedPool
from app.providers import ContentRefused, NoImageReturned, Order, Picture, ProviderFailed, ProviderUnavailable, Size
from app.providers.answers import (
    OK,
    SERVER_ERROR,
    TOO_MANY,
    UNAVAILABLE,
    Answer,
    Unreadable,
    failing_if_unreadable,
    read_picture,
)
from app.providers.purchase import Again, Purchase
from app.providers.upstream import Upstream, checked_key, not_now, unexpected, unusable

OPENAI_SIZES = "1024x1024, 1536x1024, 1024x1536"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text."""

_SIZE = re.compile(r"\s*([1-9]\d{1,3})x([1-9]\d{1,3})\s*", re.ASCII)
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)

_REFUSALS = {"content_policy_violation", "moderation_blocked", "content_filter", "contentFilter"}
_SPENT = {"insufficient_quota", "billing_hard_limit_reached"}
_FOR_THE_OPERATOR = {401, 402, 403, 404}
_KEY_REFUSED = {401, 403}
_NOT_IMPLEMENTED = 501

_UNICAST, _PORT_MAX = IPv6Network("2000::/3"), 65_535


def parse_sizes(text: str) -> list[Size]:
    """The sizes written as `1024x1024, 1536x1024`. Raises ValueError."""
    matches = [_SIZE.fullmatch(entry) for entry in text.split(",")]
    for number, match in enumerate(matches, 1):
        if match is None:
            raise ValueError(f"entry {number} must look like 1536x1024")
    return [Size(int(match[1]), int(match[2])) for match in matches if match]


async def resolve(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says; nothing where the name has no address."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for _family, _type, _protocol, _name, address in found]


class OpenAIProvider:
    """Draws with one model of an OpenAI-compatible endpoint."""

    name = "openai"
    is_deterministic = False

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
        """`pool` decodes: with a queue as long as the calls that `upstream` allows, nothing paid for is thrown away."""
        self._upstream = upstream
        self._pool = pool
        self._api_key = api_key and checked_key(api_key)
        self._base_url = base_url.rstrip("/")
        self._url = httpx2.URL(f"{self._base_url}/images/generations")
        self._model = model
        self._sizes = sizes
        self._resolve = resolve

    def refusal(self, size: Size) -> str | None:
        return None if size in self._sizes else f"Must be one of {', '.join(map(str, self._sizes))}"

    async def draw(self, order: Order, *, deadline: float) -> Picture:
        attempt = partial(self._try, order, deadline)
        return await self._upstream.draw(attempt, budget=order.budget, deadline=deadline)

    async def check(self) -> str:
        """Some endpoints have an address for each model, some a list of them, and some neither."""
        of_model = await self._look(f"/models/{quote(self._model, safe='')}")
        listed = of_model if _read_names(of_model) == {self._model} else await self._look("/models")
        names = _read_names(listed)
        if self._model in names:
            return "ok"
        if names:
            raise ProviderUnavailable("OPENAI_MODEL is none of the models that OPENAI_BASE_URL lists")
        return "it answers, but lists no models: key and model were not tried"

    async def _look(self, path: str) -> Answer:
        answer = await self._upstream.look(httpx2.Request("GET", f"{self._base_url}{path}", headers=self._headers))
        if answer is None:
            raise ProviderUnavailable("OPENAI_BASE_URL cannot be reached")
        if answer.status in _KEY_REFUSED:
            raise ProviderUnavailable("OPENAI_API_KEY is missing or refused")
        if answer.status == TOO_MANY or (answer.status >= SERVER_ERROR and answer.status != _NOT_IMPLEMENTED):
            raise ProviderUnavailable(f"OPENAI_BASE_URL answers with {answer.status}")
        return answer

    async def _try(self, order: Order, deadline: float, purchase: Purchase) -> Picture:
        async with self._upstream.exchange(self._request(order), purchase) as answer:
            if answer.status != OK:
                raise _trouble(answer)
            with failing_if_unreadable(self.name, answer):
                drawn = await self._pool.run(partial(_develop, answer.content, order.size))
        if isinstance(drawn, Picture):
            return drawn
        # It is drawn and paid: whatever becomes of the download, only that is tried again.
        return await self._upstream.persist(partial(self._download, drawn, order.size), deadline=deadline)

    def _request(self, order: Order) -> httpx2.Request:
        body = {"model": self._model, "prompt": order.prompt, "n": 1, "size": str(order.size)}
        return httpx2.Request("POST", self._url, headers=self._headers, json=body)

    @property
    def _headers(self) -> Mapping[str, str]:
        credential = {"Authorization": f"Bearer {self._api_key.get_secret_value()}"} if self._api_key else {}
        return {"Accept-Encoding": "identity", **credential}

    async def _download(self, url: str, size: Size) -> Picture:
        async with self._upstream.exchange(await self._download_request(url)) as answer:
            if answer.status != OK:
                raise unexpected(self.name, answer)
            with failing_if_unreadable(self.name, answer):
                return await self._pool.run(partial(read_picture, bytes(answer.content), size))

    async def _download_request(self, text: str) -> httpx2.Request:
        """A request for that address, without any credential. Raises ProviderFailed where we will not go.

        The endpoint chooses the address, so it could choose one of our own network. It may name itself, or a host on
        the Internet by https; and the connection goes to the very address that was checked, since a name may have
        another one a moment later.
        """
        url = _parsed(text)
        # A connection of its own: one that was made for another name at that address proved that other name.
        headers = {"Accept-Encoding": "identity", "Connection": "close"}
        if url is not None and _origin(url) == _origin(self._url):
            return httpx2.Request("GET", url, headers=headers)
        addresses = await self._resolve(url.host, url.port or 443) if url is not None and url.scheme == "https" else []
        if url is None or not addresses or not all(map(_is_public, addresses)):
            logger.error("provider_address_refused", provider=self.name)
            raise ProviderFailed
        name, place = url.raw_host.decode("ascii"), url.copy_with(host=random.SystemRandom().choice(addresses))
        headers["Host"] = url.netloc.decode("ascii")
        return httpx2.Request("GET", place, headers=headers, extensions={"sni_hostname": name})


def _parsed(text: str) -> httpx2.URL | None:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        return None
    reachable = url.host and not url.userinfo and (url.port is None or 0 < url.port <= _PORT_MAX)
    return url if reachable else None


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_public(text: str) -> bool:
    """Whether an address belongs to the Internet at large, and is no way of writing another that does not."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(str(address.ipv4_mapped))
        if address not in _UNICAST or address.sixtofour is not None:
            return False
    return address.is_global and not address.is_multicast


class _Wire(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64", hide_input_in_errors=True)


class _Image(_Wire):
    b64_json: bytes | None = None
    url: str | None = None


class _Generated(_Wire):
    data: list[_Image] | None = None


class _Model(_Wire):
    id: str


class _Models(_Wire):
    data: list[_Model]


def _read_names(answer: Answer) -> set[str]:
    """The names of the models in an answer about one or about all; none in whatever else is said."""
    for shape in (_Model, _Models) if answer.status == OK else ():
        with suppress(ValidationError):
            told = shape.model_validate_json(answer.content)
            return {told.id} if isinstance(told, _Model) else {model.id for model in told.data}
    return set()


def _develop(content: bytearray, size: Size) -> Picture | str:
    """The picture, or where it is."""
    generated = _read(content)
    if generated is None:
        raise Unreadable
    for image in generated.data or []:
        if image.b64_json is not None:
            return read_picture(image.b64_json, size)
        if image.url is not None:
            return image.url
    raise Again(NoImageReturned(), may_pay_twice=True)


def _read(content: bytearray) -> _Generated | None:
    try:
        return _Generated.model_validate_json(content)
    except ValidationError:
        return None


class _Error(_Wire):
    code: str | int | None = None
    type: str | None = None


class _Failed(_Wire):
    error: _Error


def _trouble(answer: Answer) -> Exception:
    status, words = answer.status, _read_error(answer.content)
    if words & _REFUSALS:
        return ContentRefused()
    if words & _SPENT:
        return unusable(OpenAIProvider.name, status=status, reason="quota")
    if status in {TOO_MANY, UNAVAILABLE}:
        return not_now(_told_seconds(answer.headers))
    if status in _FOR_THE_OPERATOR:
        return unusable(OpenAIProvider.name, status=status, reason="credentials, permission or model")
    return unexpected(OpenAIProvider.name, answer)


def _told_seconds(headers: httpx2.Headers) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1)):
        if _SECONDS.fullmatch(headers.get(name, "")):
            return float(headers[name]) * unit
    return None


def _read_error(content: bytearray) -> set[str]:
    try:
        error = _Failed.model_validate_json(content).error
    except ValidationError:
        return set()
    return {str(error.code), str(error.type)}
