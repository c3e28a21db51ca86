"""Calls to a provider over HTTP: bounded in number, time and bytes, and not repeated where one may have been paid."""

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext

import httpx2
from pydantic import SecretStr

from app.core.errors import ApiError, Unavailable
from app.core.logs import logger
from app.providers import CallBudget, Picture, ProviderFailed, ProviderTimeout, ProviderUnavailable
from app.providers.answers import OK, SERVER_ERROR, TIMED_OUT, Answer
from app.providers.purchase import Again, BudgetClosed, Purchase

_ERROR_BYTES_MAX = 64 * 1024
# A provider that closes a connection just as a call is sent on it leaves a call that may have been paid. So ours are
# closed first: uvicorn, Node and Apache keep theirs for five seconds, nginx for 75, Google and Cloudflare for longer.
_IDLE_CONNECTIONS_MAX, _IDLE_SECONDS = 100, 4
_PAUSE_SECONDS_MAX = 10.0
_UNTOLD_SECONDS, _UNUSABLE_SECONDS = 5, 60
_LOOK_SECONDS = 5


@dataclass(frozen=True)
class Bounds:
    """What calls to one provider may take of this process."""

    calls_max: int = 1000
    """Drawings in flight, their pauses included; one more is refused at once."""
    connect_seconds: float = 10
    first_byte_seconds: float = 120
    """Also the longest silence between two pieces of an answer."""
    bytes_max: int = 64 * 1024 * 1024
    """Of one answer."""
    readers_max: int = 32
    """Answers in memory at a time; the others wait in the provider's connection."""
    tries_max: int = 3
    pause_seconds: float = 0.5
    """The longest pause before the second try; it doubles for each further one."""


class Upstream:
    """The way to one provider. Redirects, cookies and the environment's proxies and passwords are not followed.

    What it raises holds no request, no answer and no address, not even as the cause: a request's headers are the key.
    """

    def __init__(self, bounds: Bounds, *, ssl_context: SSLContext | None = None) -> None:
        self._bounds = bounds
        self._room = bounds.calls_max
        self._readers = asyncio.Semaphore(bounds.readers_max)
        self._connections = _Connections(ssl_context or httpx2.create_ssl_context(trust_env=False))

    async def draw(
        self, attempt: Callable[[Purchase], Awaitable[Picture]], *, budget: CallBudget, deadline: float
    ) -> Picture:
        """What `attempt` returns, after as many tries as it asks for and the budget and the bounds allow, before
        `deadline`. Its calls belong to the purchase that it is given.

        Raises Unavailable at once when too many are drawn already, ProviderTimeout at the deadline, and whatever error
        `attempt` raises. Each says whether one of the calls may have been paid.
        """
        if self._room == 0:
            raise Unavailable
        self._room -= 1
        purchase = Purchase(budget)
        try:
            async with asyncio.timeout_at(deadline):
                # The other images of the request take their slots, or find none, before a call for this one is sent.
                await asyncio.sleep(0)
                return await self.persist(partial(attempt, purchase), deadline=deadline, purchase=purchase)
        except TimeoutError:
            pass  # raised below, so that it has no cause to show
        except ApiError as error:
            error.may_have_been_paid = purchase.may_have_been_paid
            raise
        finally:
            self._room += 1
            purchase.end()
        late = ProviderTimeout()
        late.may_have_been_paid = purchase.may_have_been_paid
        raise late

    async def persist(
        self, attempt: Callable[[], Awaitable[Picture]], *, deadline: float, purchase: Purchase | None = None
    ) -> Picture:
        """The same without the bound on calls, for a step of one that is counted already. Without a purchase, for one
        that costs nothing: it has as many tries as the bounds allow.
        """
        loop = asyncio.get_running_loop()
        purchase = purchase or Purchase(CallBudget())
        tried = 0
        while True:
            tried += 1
            try:
                return await attempt()
            except Again as raised:
                failed = raised
            pause = self._pause_seconds(failed, tried)
            in_time = loop.time() + pause < deadline
            if not in_time or not purchase.may_repeat(failed, tries_max=self._bounds.tries_max):
                raise failed.error
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def exchange(self, request: httpx2.Request, purchase: Purchase | None = None) -> AsyncIterator[Answer]:
        """The answer to one request, which belongs to `purchase` unless it costs nothing. It takes one of the places
        for answers in memory until the context is left.

        Raises Again where the connection failed or was lost or too much came, and ProviderTimeout where the provider
        fell silent.
        """
        bounds = self._bounds
        silence = {"read": bounds.first_byte_seconds, "write": bounds.first_byte_seconds}
        request.extensions = {**request.extensions, "timeout": {"connect": bounds.connect_seconds, **silence}}
        if purchase is not None:
            purchase.begin_call()
            request.extensions["trace"] = purchase.trace
        trouble: Exception | None = None
        async with AsyncExitStack() as held:
            try:
                answer = await self._read(request, held)
            except (httpx2.ReadTimeout, httpx2.WriteTimeout):
                trouble = ProviderTimeout()
            except (_TooLarge, BudgetClosed):
                trouble = Again(ProviderFailed())
            except (httpx2.TransportError, OSError) as error:  # an alert of TLS is an OSError of its own
                logger.error("provider_connection_failed", failure=type(error).__name__)
                trouble = Again(ProviderFailed())
            if trouble is not None:
                raise trouble
            if purchase is not None and answer.says_nothing_was_drawn:
                purchase.nothing_was_drawn()
            yield answer

    async def look(self, request: httpx2.Request) -> Answer | None:
        """The answer to a question that costs nothing, asked once; None where there is none in time."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS), self.exchange(request) as answer:
                return answer
        except (Again, ProviderTimeout, TimeoutError):
            return None

    async def _read(self, request: httpx2.Request, held: AsyncExitStack) -> Answer:
        async with self._connections.send(request) as response:
            await held.enter_async_context(self._readers)
            succeeded, content = response.status_code == OK, bytearray()
            most = self._bounds.bytes_max if succeeded else _ERROR_BYTES_MAX
            answer = Answer(response.status_code, response.headers, content)
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > most:
                    if succeeded:
                        logger.error("provider_answer_too_large", **answer.description)
                        raise _TooLarge
                    break
            return answer

    def _pause_seconds(self, failed: Again, tried: int) -> float:
        # Jitter, or all who failed together come back together. Not a secret, so any generator will do.
        longest = min(_PAUSE_SECONDS_MAX, self._bounds.pause_seconds * 2.0 ** (tried - 1))
        return (failed.told_seconds or 0) + longest * random.SystemRandom().uniform(0.1, 1)

    async def close(self) -> None:
        """Ends what is left of its connections."""
        await self._connections.close()


def unusable(provider: str, *, status: int, reason: str) -> ProviderUnavailable:
    """The error for what only the operator can mend, told in the log: our word for it, and none of the provider's."""
    logger.error("provider_unusable", provider=provider, status=status, reason=reason)
    return ProviderUnavailable(retry_after_seconds=_UNUSABLE_SECONDS)


def unexpected(provider: str, answer: Answer) -> Exception:
    """What a status stands for that has no meaning of its own, logged: worth another try where it may be in trouble."""
    logger.error("provider_answer_unexpected", provider=provider, **answer.description)
    return Again(ProviderFailed()) if answer.status >= SERVER_ERROR or answer.status == TIMED_OUT else ProviderFailed()


def not_now(told_seconds: float | None) -> Again:
    """What a 429 and a 503 stand for: nothing was drawn, and another try may come as soon as the provider says."""
    seconds = max(1, math.ceil(_UNTOLD_SECONDS if told_seconds is None else told_seconds))
    return Again(ProviderUnavailable(retry_after_seconds=seconds), told_seconds=told_seconds)


def checked_key(key: SecretStr) -> SecretStr:
    """The key, if a header can hold it. Raises ValueError, without it."""
    raw = key.get_secret_value()
    if not raw.isascii() or not raw.isprintable() or " " in raw:
        raise ValueError("A provider's key must be visible ASCII characters")
    return key


class _TooLarge(Exception):
    """More than one answer may have."""


class _Connections:
    """Connections that carry one call at a time, all with one SSL context. The last used is the next; of those that are
    idle, a hundred are kept.

    Each is a pool of its own: a pool looks at all its connections whenever a call begins or ends, and with thousands of
    them does little else.
    """

    def __init__(self, ssl_context: SSLContext) -> None:
        self._ssl_context = ssl_context
        self._idle: deque[httpx2.AsyncHTTPTransport] = deque()
        self._busy: set[httpx2.AsyncHTTPTransport] = set()

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

    def _new(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=_IDLE_SECONDS)
        return httpx2.AsyncHTTPTransport(verify=self._ssl_context, limits=limits, trust_env=False)

    async def close(self) -> None:
        for transport in (*self._idle, *self._busy):
            await transport.aclose()
