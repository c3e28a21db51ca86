"""What all providers behind an HTTP API have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode

import httpx2
from pydantic import SecretStr

from app.core.errors import Unavailable
from app.core.pool import BoundedPool
from app.providers import DrawRequest, Image, NoFreeSlot, Size
from app.providers.event_stream import TakeEvent
from app.providers.inputs import CallLimits, InputFitting
from app.providers.responses import (
    ERROR_BYTES_MAX,
    OPERATOR_STATUSES,
    TOO_MANY,
    UNAVAILABLE,
    Response,
    StatedError,
    UnreadableResponse,
    busy_error,
    failing_if_unreadable,
    operator_error,
    status_error,
)
from app.providers.retries import ImageCalls
from app.providers.upstream import Upstream

Result = TypeVar("Result")

UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""Images do not get smaller by it. What comes compressed all the same is decompressed within the bound."""


class RemoteProvider(ABC):
    """Draws one image with each call. Every image costs, and no two are alike."""

    name: str
    is_deterministic = False

    def __init__(
        self, upstream: Upstream, pool: BoundedPool, *, sizes: Collection[Size], input_limits: CallLimits
    ) -> None:
        """`pool` decodes: its queue must be as long as the calls that `upstream` allows, or paid images are lost."""
        self._upstream = upstream
        self._pool = pool
        self._sizes = sizes
        self._inputs = InputFitting(input_limits, pool, upstream.keep)

    def refusal(self, size: Size | None) -> str | None:
        return None if size in self._sizes else f"Must be one of {', '.join(map(str, self._sizes))}"

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        calls = ImageCalls(
            request.budget,
            deadline,
            tally=request.tally,
            leaves_unpaid_failures=request.leave_unpaid_failures,
        )
        attempt = self._attempt_with_images if request.images else self._attempt
        image = await self._upstream.draw(partial(attempt, request, calls), calls)
        return replace(image, provider_request_id=calls.provider_request_id)

    async def _attempt_with_images(self, request: DrawRequest, calls: ImageCalls) -> Image:
        return await self._attempt(await self._inputs.fitted(request), calls)

    @abstractmethod
    async def _attempt(self, request: DrawRequest, calls: ImageCalls) -> Image:
        """One attempt to draw. Raises Retry where another may succeed."""

    @abstractmethod
    def _api_error(self, response: Response) -> Exception | None:
        """The error that the body of a failed call names; None where only its status says something."""

    @abstractmethod
    def _retry_after_seconds(self, response: Response) -> float | None:
        """The delay that a 429 or a 503 asks for."""

    async def _send(
        self,
        request: httpx2.Request,
        decode: Callable[[bytes | bytearray], Result],
        error: Callable[[Response], Exception],
        calls: ImageCalls | None = None,
        take_event: TakeEvent | None = None,
    ) -> Result:
        """What `decode`, in a thread, makes of the body of a success. Raises `error` of any other response, and of an
        error that `decode` finds in a success. `take_event` as in `Upstream.call`.
        """
        async with self._upstream.call(request, calls, take_event) as response:
            if not response.succeeded:
                raise error(_readable(response, ERROR_BYTES_MAX))
            try:
                with failing_if_unreadable(self.name, response):
                    return await self._pool.run(partial(_decode, response, decode, self._upstream.bytes_max))
            except Unavailable:  # the pool is full, and the image is lost
                raise NoFreeSlot from None
            except StatedError as stated:
                status = stated.status
            failed = replace(response, status=status)
            if calls is not None and failed.means_unpaid:
                calls.mark_unpaid()
            raise error(_readable(failed, ERROR_BYTES_MAX))

    async def _probe(self, url: httpx2.URL, headers: Mapping[str, str]) -> Response:
        """The response to a GET that costs nothing. Raises Unreachable."""
        response = await self._upstream.probe(httpx2.Request("GET", url, headers=headers))
        return _readable(response, self._upstream.bytes_max)

    def _error(self, response: Response) -> Exception:
        named = self._api_error(response)
        if named is not None:
            return named
        if response.status in {TOO_MANY, UNAVAILABLE}:
            return busy_error(self._retry_after_seconds(response))
        if response.status in OPERATOR_STATUSES:
            return operator_error(status=response.status, reason="credentials, permission or model")
        return status_error(self.name, response, "request" if response.means_unpaid else "failed")


def _decode(response: Response, decode: Callable[[bytes | bytearray], Result], bytes_max: int) -> Result:
    return decode(response.decompressed(bytes_max=bytes_max).content)


def _readable(response: Response, bytes_max: int) -> Response:
    """The response decompressed; where that fails, without a body."""
    try:
        return response.decompressed(bytes_max=bytes_max)
    except UnreadableResponse:
        return replace(response, content=b"")


def joined(base_url: str, path: str, query: Mapping[str, str] | None = None) -> httpx2.URL:
    """The URL of this path below a base URL, whose query it keeps, and with these further parameters. Raises ValueError
    for one that the base URL has already.
    """
    base, _, own = base_url.partition("?")
    if not dict(parse_qsl(own, keep_blank_values=True)).keys().isdisjoint(query or {}):
        raise ValueError("A parameter of the query stands in the base URL already")
    parameters = "&".join(filter(None, [own, urlencode(query or {})]))
    return httpx2.URL(f"{base.rstrip('/')}{path}{parameters and '?'}{parameters}")


def checked_key(key: SecretStr) -> SecretStr:
    """The key, if an HTTP header can hold it. Raises ValueError, without quoting it."""
    raw = key.get_secret_value()
    if not raw.isascii() or not raw.isprintable() or " " in raw:
        raise ValueError("A provider's key must be visible ASCII characters")
    return key
