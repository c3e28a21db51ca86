"""Providers on stand-ins: each speaks over a loopback socket to a server of its test's own."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from app.core.pool import BoundedPool
from app.providers import Provider
from app.providers.gemini import GeminiProvider
from app.providers.openai import OpenAIProvider, resolve
from app.providers.upstream import Upstream
from tests.providers.drawing import (
    BOUNDS,
    KEY,
    Behind,
    GeminiWithin,
    OpenAIResolving,
    OpenUpstream,
    Serve,
    gemini_provider,
    openai_provider,
)
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import OpenAIStandIn
from tests.standins.wire import Reply, Seen, serving


@pytest.fixture(scope="session")
def pool() -> Iterator[BoundedPool]:
    """Where pictures are decoded and drawn."""
    pool = BoundedPool(threads=1, queue_max=1000, name="draw")
    yield pool
    pool.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server for one test, and says where it is."""
    async with AsyncExitStack() as stack:

        async def start(answer: Callable[[Seen], Reply]) -> str:
            return await stack.enter_async_context(serving(answer))

        yield start


@pytest.fixture
async def open_upstream() -> AsyncIterator[OpenUpstream]:
    """Opens a way to a provider for one test, with other bounds: `open_upstream(tries_max=1)`."""
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
def gemini_within(google_url: str, open_upstream: OpenUpstream, pool: BoundedPool) -> GeminiWithin:
    """Gemini, as `google` plays it, within other bounds: `gemini_within(tries_max=1)`."""
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
def openai_resolving(endpoint_url: str, open_upstream: OpenUpstream, pool: BoundedPool) -> OpenAIResolving:
    """An OpenAI-compatible endpoint, as `endpoint` plays it, on a network whose names mean something else."""
    return lambda resolve: openai_provider(open_upstream(), pool, endpoint_url, resolve=resolve)


@pytest.fixture
def openai(openai_resolving: OpenAIResolving) -> OpenAIProvider:
    return openai_resolving(resolve)


@pytest.fixture(params=["gemini", "openai"])
def behind(request: pytest.FixtureRequest, open_upstream: OpenUpstream, pool: BoundedPool) -> Behind:
    """Both dialects, one after the other."""
    name, build = ("google", gemini_provider) if request.param == "gemini" else ("endpoint", openai_provider)
    stand_in, its_url = (request.getfixturevalue(each) for each in (name, f"{name}_url"))

    def open_provider(url: str | None = None, **bounds: Any) -> Provider:
        return build(open_upstream(**bounds), pool, url or its_url)

    return Behind(request.param, stand_in, open_provider)
