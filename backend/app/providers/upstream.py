"""Calls to a provider over HTTP: bounded in number, time and bytes, and not repeated where one may have been paid."""

import asyncio
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext

import httpx2

from app.core.blobs import Blob, BlobSpace
from app.core.egress import Egress
from app.core.errors import ApiError
from app.core.image_settings import LOCAL_HOSTS
from app.core.logs import logger
from app.providers import Image, ProviderFailed, ProviderTimeout
from app.providers.connect import Resolver
from app.providers.event_stream import BLOCK_BYTES, ResponseTooLarge, TakeEvent, is_event_stream, read_events
from app.providers.reachability import Unreachable, reason_of
from app.providers.response_memory import ResponseMemory
from app.providers.responses import ERROR_BYTES_MAX, REQUEST_ID_HEADERS, Response
from app.providers.retries import BudgetClosed, ImageCalls, NotReached, Retry
from app.providers.slots import AccountSlots
from app.providers.transport import BUFFER_BYTES, DirectTransport

# A provider that closes a connection just as a call is sent on it leaves a call that may have been paid. So ours are
# closed first: uvicorn, Node and Apache keep theirs for five seconds, nginx for 75, Google and Cloudflare for longer.
_IDLE_CONNECTIONS_MAX, _IDLE_SECONDS = 100, 4
_PAUSE_SECONDS_MAX = 10.0
_PROBE_SECONDS = 5
_LENGTH = re.compile("[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True)
class Bounds:
    """What calls to one provider may take of this process."""

    calls_max: int = 1000
    """Images being drawn at a time, their pauses included; further ones wait in line, see AccountSlots."""
    account_calls_max: int = 1000
    """The same of one account."""
    connect_seconds: float = 10
    first_byte_seconds: float = 120
    """Also the longest silence between two chunks of a response."""
    bytes_max: int = 64 * 1024 * 1024
    """Of one response."""
    held_bytes_max: int = 256 * 1024 * 1024
    """Of all responses in memory at a time; the others wait in the provider's connection. See ResponseMemory."""
    attempts_max: int = 3
    pause_seconds: float = 0.5
    """The longest pause before the second attempt; it doubles for each further one."""


_DIRECT = Egress()


class SharedUpstream:
    """What all providers of a process share: the certificates that they trust, the memory for responses, and that for
    images that are made smaller; without `blobs` nothing bounds it.
    """

    def __init__(
        self,
        egress: Egress = _DIRECT,
        *,
        held_bytes_max: int = Bounds.held_bytes_max,
        blobs: BlobSpace | None = None,
    ) -> None:
        self.egress = egress
        self.blobs = blobs
        self.memory = ResponseMemory(held_bytes_max)
        self.ssl_context = egress.ssl_context()


class Upstream:
    """Sends calls to one provider. Redirects, cookies and the environment's proxies, certificates and passwords are not
    followed.

    No error holds a request, a response or an address, not even as its cause: a request's headers carry the key.
    """

    def __init__(self, bounds: Bounds, shared: SharedUpstream | None = None) -> None:
        """Without `shared`, it shares nothing with another."""
        shared = shared or SharedUpstream(held_bytes_max=bounds.held_bytes_max)
        self._bounds = bounds
        self._slots = AccountSlots(bounds.calls_max, bounds.account_calls_max)
        self._memory = shared.memory
        self._blobs = shared.blobs
        proxy = shared.egress.proxy
        self._resolver = Resolver()
        self._connections = _Connections(shared.ssl_context, self._resolver)
        self._proxied = (
            None if proxy is None else _Connections(shared.ssl_context, self._resolver, proxy.get_secret_value())
        )

    @property
    def calls(self) -> int:
        """How many images are being drawn."""
        return self._slots.held

    @property
    def calls_waiting(self) -> int:
        """How many images wait until fewer are drawn."""
        return self._slots.waiting

    @property
    def bytes_max(self) -> int:
        """The most bytes of one response, compressed or not."""
        return self._bounds.bytes_max

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        """The IP addresses of a host that the provider has named; none where it has none."""
        return await self._resolver.look_up(host, port)

    async def keep(self, content: bytes) -> Blob:
        """These bytes, for a call."""
        return Blob(content) if self._blobs is None else await self._blobs.keep(content)

    async def draw(self, attempt: Callable[[], Awaitable[Image]], calls: ImageCalls) -> Image:
        """The result of `attempt`, which sends `calls`, after as many attempts as it asks for and as the budget and the
        bounds allow, before the deadline.

        Raises NoFreeSlot at once where the request is refused a slot, ProviderTimeout at the deadline, what closes the
        request's budget before a call for this image is sent, and any error of `attempt`. Each says whether one of the
        calls may have been paid.
        """
        waits = not calls.leaves_unpaid_failures
        try:
            async with asyncio.timeout_at(calls.deadline), self._slots.hold(calls.budget, waits=waits):
                if calls.budget.before_call is not None:
                    await calls.budget.before_call()
                return await self.retry(attempt, calls)
        except TimeoutError:
            pass  # raised below, so that it has no cause
        except ApiError as error:
            calls.fail(error)
            raise
        finally:
            calls.end()
        late = ProviderTimeout(failure=calls.interruption)
        calls.fail(late)
        raise late

    async def retry(self, attempt: Callable[[], Awaitable[Image]], calls: ImageCalls) -> Image:
        """The same without `calls_max`, for a step of a drawing that already holds a slot."""
        loop = asyncio.get_running_loop()
        attempts = 0
        while True:
            attempts += 1
            try:
                return await attempt()
            except Retry as raised:
                failed = raised
            pause = self._pause_seconds(failed, attempts)
            in_time = loop.time() + pause < calls.deadline
            if not in_time or not calls.may_repeat(failed, attempts_max=self._bounds.attempts_max):
                raise failed.error
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def call(
        self, request: httpx2.Request, calls: ImageCalls | None = None, take_event: TakeEvent | None = None
    ) -> AsyncIterator[Response]:
        """The response to one request, which is counted in `calls` unless it costs nothing. It holds its
        bytes of `held_bytes_max` until the context is left. The body of a stream of events is what `take_event` makes
        of it.

        Raises Retry where the connection failed or was lost or the response was too large, and ProviderTimeout where
        the provider fell silent.
        """
        bounds = self._bounds
        silence = {"read": bounds.first_byte_seconds, "write": bounds.first_byte_seconds}
        request.extensions = {**request.extensions, "timeout": {"connect": bounds.connect_seconds, **silence}}
        if calls is not None:
            calls.begin_call()
            request.extensions["trace"] = calls.trace
        failure: Exception | None = None
        async with AsyncExitStack() as held:
            try:
                response = await self._read(request, held, calls, take_event)
            except (httpx2.ReadTimeout, httpx2.WriteTimeout):
                failure = ProviderTimeout()
            except BudgetClosed as closed:
                failure = closed.error
            except ResponseTooLarge:
                failure = Retry(ProviderFailed(failure="unreadable"))
            except (httpx2.TransportError, OSError) as error:  # a TLS alert is an OSError of its own
                reason = reason_of(error, through_proxy=self._connections_for(request) is self._proxied)
                logger.error("provider_connection_failed", failure=type(error).__name__, reason=reason)
                failure = NotReached(ProviderFailed(failure=calls.interruption if calls else None), reason)
            if failure is not None:
                raise failure
            if calls is not None and response.means_unpaid:
                calls.mark_unpaid()
            yield response

    async def probe(self, request: httpx2.Request) -> Response:
        """The response to one request that costs nothing, sent once. Raises Unreachable where none arrives within five
        seconds.
        """
        try:
            async with asyncio.timeout(_PROBE_SECONDS), self.call(request) as response:
                return response
        except NotReached as failed:
            raise Unreachable(failed.reason) from None
        except (ProviderTimeout, TimeoutError):
            raise Unreachable("timed_out") from None
        except Retry:
            raise Unreachable("lost") from None

    def _connections_for(self, request: httpx2.Request) -> "_Connections":
        is_local = request.url.host in LOCAL_HOSTS
        return self._connections if self._proxied is None or is_local else self._proxied

    async def _read(
        self, request: httpx2.Request, held: AsyncExitStack, calls: ImageCalls | None, take_event: TakeEvent | None
    ) -> Response:
        async with self._connections_for(request).send(request) as received:
            if calls is not None:
                calls.status = received.status_code
                calls.identify(*(received.headers.get(name) for name in REQUEST_ID_HEADERS))
            content = bytearray()
            response = Response(received.status_code, received.headers, content)
            bytes_max = self._bounds.bytes_max if response.succeeded else ERROR_BYTES_MAX
            share = await held.enter_async_context(self._memory.hold(min(_stated_bytes(received), bytes_max)))
            if take_event is not None and response.succeeded and is_event_stream(received.headers):
                content += await read_events(received, share, bytes_max=bytes_max, take=take_event)
                return response
            try:
                async for chunk in received.aiter_raw():
                    content += chunk
                    if len(content) > share.bytes:
                        await share.grow(BLOCK_BYTES)
                    if len(content) > bytes_max:
                        if response.succeeded:
                            logger.error("provider_answer_too_large", **response.description)
                            raise ResponseTooLarge
                        break
            except (httpx2.TransportError, OSError):
                # A provider that refuses before it has read all images resets the connection, maybe within its answer,
                # whose status says enough.
                if response.succeeded:
                    raise
            return response

    def _pause_seconds(self, failed: Retry, attempts: int) -> float:
        # Jitter, or all calls that failed together would be repeated together.
        longest = min(_PAUSE_SECONDS_MAX, self._bounds.pause_seconds * 2.0 ** (attempts - 1))
        return (failed.after_seconds or 0) + longest * random.SystemRandom().uniform(0.1, 1)

    async def close(self) -> None:
        """Closes the remaining connections."""
        await self._connections.close()
        if self._proxied is not None:
            await self._proxied.close()
        self._resolver.close()


def _stated_bytes(response: httpx2.Response) -> int:
    """The length that the head states; where it states none, a block, and the response holds more as it grows."""
    stated = response.headers.get("content-length", "")
    return int(stated) if _LENGTH.fullmatch(stated) else BLOCK_BYTES


class _Connections:
    """Connections that carry one call at a time, all with one SSL context. The last used is reused first, and at most
    a hundred idle ones are kept.
    """

    def __init__(self, ssl_context: SSLContext, resolver: Resolver, proxy_url: str | None = None) -> None:
        self._ssl_context = ssl_context
        self._resolver = resolver
        self._proxy_url = proxy_url
        self._idle: deque[httpx2.AsyncBaseTransport] = deque()
        self._busy: set[httpx2.AsyncBaseTransport] = set()
        self._ssl_context.set_alpn_protocols(["http/1.1"])
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    @asynccontextmanager
    async def send(self, request: httpx2.Request) -> AsyncIterator[httpx2.Response]:
        transport = self._idle.pop() if self._idle else self._new()
        self._busy.add(transport)
        try:
            response = await transport.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            self._busy.remove(transport)
            self._idle.append(transport)
            if len(self._idle) > _IDLE_CONNECTIONS_MAX:
                await self._idle.popleft().aclose()

    def _new(self) -> httpx2.AsyncBaseTransport:
        if self._proxy_url is None:
            return DirectTransport(self._ssl_context, self._resolver, buffer=self._buffer, idle_seconds=_IDLE_SECONDS)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=_IDLE_SECONDS)
        tls = self._ssl_context if self._proxy_url.startswith("https:") else None
        proxy = httpx2.Proxy(self._proxy_url, ssl_context=tls)
        return httpx2.AsyncHTTPTransport(verify=self._ssl_context, limits=limits, trust_env=False, proxy=proxy)

    async def close(self) -> None:
        for transport in (*self._idle, *self._busy):
            await transport.aclose()
