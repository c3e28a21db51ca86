"""Providers on stand-ins: each speaks over a loopback socket to a server of its test's own."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from app.core.fair_queue import FairPool
from app.providers import Provider
from app.providers.gemini import GeminiProvider
from app.providers.openai import OpenAIProvider
from app.providers.upstream import Upstream
from tests.providers.remote import (
    BOUNDS,
    KEY,
    GeminiWithin,
    OpenAIResolving,
    OpenAIWith,
    OpenUpstream,
    RemoteSetup,
    Serve,
    gemini_provider,
    openai_provider,
)
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import OpenAIStandIn
from tests.standins.wire import Reply, Seen, serving


@pytest.fixture(scope="session")
def pool() -> Iterator[FairPool]:
    """Decodes and draws images."""
    pool = FairPool(threads=1, queue_max=1000, name="draw")
    yield pool
    pool.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server for one test, and returns its URL."""
    async with AsyncExitStack() as stack:

        async def start(answer: Callable[[Seen], Reply]) -> str:
            return await stack.enter_async_context(serving(answer))

        yield start


@pytest.fixture
async def open_upstream() -> AsyncIterator[OpenUpstream]:
    """Opens an Upstream for one test, with other bounds: `open_upstream(attempts_max=1)`."""
    async with AsyncExitStack() as stack:

        def start(**bounds: Any) -> Upstream:
            upstream = Upstream(replace(BOUNDS, **bounds))
            stack.push_async_callback(upstream.close)
            return upstream

        yield start


@pytest.fixture
def google() -> GeminiStandIn:
    return GeminiStandIn(api_key=KEY)


@pytest.fixture
async def google_url(google: GeminiStandIn, serve: Serve) -> str:
    return await serve(google.answer)


@pytest.fixture
def gemini_within(google_url: str, open_upstream: OpenUpstream, pool: FairPool) -> GeminiWithin:
    """A provider on the stand-in `google`, with other bounds: `gemini_within(attempts_max=1)`."""
    return lambda **bounds: gemini_provider(open_upstream(**bounds), pool, google_url)


@pytest.fixture
def gemini(gemini_within: GeminiWithin) -> GeminiProvider:
    provider: GeminiProvider = gemini_within()
    return provider


@pytest.fixture
def endpoint() -> OpenAIStandIn:
    return OpenAIStandIn(api_key=KEY)


@pytest.fixture
async def endpoint_url(endpoint: OpenAIStandIn, serve: Serve) -> str:
    return await serve(endpoint.answer)


@pytest.fixture
def openai_resolving(endpoint_url: str, open_upstream: OpenUpstream, pool: FairPool) -> OpenAIResolving:
    """A provider on the stand-in `endpoint`, with another resolver."""
    return lambda resolve: openai_provider(open_upstream(), pool, endpoint_url, resolve=resolve)


@pytest.fixture
def openai_with(endpoint_url: str, open_upstream: OpenUpstream, pool: FairPool) -> OpenAIWith:
    """A provider on the stand-in `endpoint`, with other bounds, and other options of `openai_provider`."""
    return lambda bounds=None, **options: openai_provider(
        open_upstream(**(bounds or {})), pool, endpoint_url, **options
    )


@pytest.fixture
def openai(openai_resolving: OpenAIResolving) -> OpenAIProvider:
    return openai_resolving(None)


@pytest.fixture(params=["gemini", "openai"])
def remote(request: pytest.FixtureRequest, open_upstream: OpenUpstream, pool: FairPool) -> RemoteSetup:
    """Each dialect in turn."""
    name, build = ("google", gemini_provider) if request.param == "gemini" else ("endpoint", openai_provider)
    stand_in, its_url = (request.getfixturevalue(each) for each in (name, f"{name}_url"))

    def open_provider(url: str | None = None, **bounds: Any) -> Provider:
        return build(open_upstream(**bounds), pool, url or its_url)

    return RemoteSetup(request.param, stand_in, open_provider)
