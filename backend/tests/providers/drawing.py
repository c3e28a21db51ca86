"""Providers as they would be configured, but for their addresses and for how long they pause between tries."""

import asyncio
from collections.abc import Awaitable, Callable

from app.core.pool import BoundedPool
from app.providers import Order, Size
from app.providers.gemini import GEMINI_SIZES, GeminiProvider, parse_frames
from app.providers.openai import OPENAI_SIZES, OpenAIProvider, Resolve, parse_sizes, resolve
from app.providers.upstream import Bounds, Upstream
from pydantic import SecretStr
from tests.standins import gemini, openai
from tests.standins.wire import Reply, Seen

KEY = "canary-key-of-the-operator-0123456789"
BOUNDS = Bounds(pause_seconds=0.001, connect_seconds=20, first_byte_seconds=20)
BANANA = Order("canary-prompt: a cute banana", Size(1024, 1024))

Serve = Callable[[Callable[[Seen], Reply]], Awaitable[str]]
OpenUpstream = Callable[..., Upstream]
GeminiWithin = Callable[..., GeminiProvider]
OpenAIResolving = Callable[[Resolve], OpenAIProvider]


def soon() -> float:
    """A deadline that is not met, unless something is broken."""
    return asyncio.get_running_loop().time() + 30


def gemini_provider(
    upstream: Upstream, pool: BoundedPool, base_url: str, *, key: str = KEY, model: str = gemini.MODEL
) -> GeminiProvider:
    return GeminiProvider(
        upstream,
        pool,
        api_key=SecretStr(key),
        base_url=base_url,
        api_version="v1beta",
        model=model,
        frames=parse_frames(GEMINI_SIZES),
    )


def openai_provider(
    upstream: Upstream, pool: BoundedPool, base_url: str, *, key: str | None = KEY, resolve: Resolve = resolve
) -> OpenAIProvider:
    return OpenAIProvider(
        upstream,
        pool,
        api_key=None if key is None else SecretStr(key),
        base_url=f"{base_url}/v1",
        model=openai.MODEL,
        sizes=parse_sizes(OPENAI_SIZES),
        resolve=resolve,
    )
