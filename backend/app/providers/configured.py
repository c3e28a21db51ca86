"""The provider that the settings name."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from app.core.egress import Egress
from app.core.fair_queue import FairPool
from app.core.pool import BoundedPool
from app.core.settings import ConfigurationError, Settings
from app.providers import Provider
from app.providers.gemini import GEMINI_SIZES, GeminiProvider, parse_frames
from app.providers.openai import OPENAI_SIZES, OpenAIProvider, parse_sizes
from app.providers.stub import StubProvider
from app.providers.upstream import Bounds, Upstream

Parsed = TypeVar("Parsed")


@asynccontextmanager
async def configured_provider(
    settings: Settings, *, drawing: FairPool, decoding: BoundedPool
) -> AsyncIterator[Provider]:
    """The provider for live keys; its connections are closed at the end. The stub draws in the threads of `drawing`;
    what any other provider sends is decoded in those of `decoding`.

    Raises ConfigurationError for a setting that is missing or cannot be read.
    """
    if settings.uses_stub:
        yield StubProvider(drawing)
        return
    seconds = settings.generation_deadline_seconds
    bounds = Bounds(
        calls_max=settings.provider_calls_max,
        account_calls_max=settings.provider_calls_max_of_account,
        first_byte_seconds=seconds,
    )
    upstream = Upstream(bounds, egress=Egress.of(settings))
    choose = _gemini if settings.image_provider == "gemini" else _openai
    try:
        provider = choose(settings, upstream, decoding)
    except ValueError as error:
        raise ConfigurationError(f"The key of IMAGE_PROVIDER cannot be used: {error}.") from None
    try:
        yield provider
    finally:
        await upstream.close()


def _gemini(settings: Settings, upstream: Upstream, pool: BoundedPool) -> Provider:
    if settings.gemini_api_key is None:
        raise ConfigurationError("IMAGE_PROVIDER is gemini, but GEMINI_API_KEY is missing.")
    return GeminiProvider(
        upstream,
        pool,
        api_key=settings.gemini_api_key,
        base_url=settings.gemini_base_url,
        api_version=settings.gemini_api_version,
        model=settings.gemini_model,
        frames=_parsed("GEMINI_SIZES", parse_frames, settings.gemini_sizes or GEMINI_SIZES),
    )


def _openai(settings: Settings, upstream: Upstream, pool: BoundedPool) -> Provider:
    return OpenAIProvider(
        upstream,
        pool,
        api_key=settings.openai_api_key,
        base_url=settings.openai_base_url,
        model=settings.openai_model,
        sizes=_parsed("OPENAI_SIZES", parse_sizes, settings.openai_sizes or OPENAI_SIZES),
    )


def _parsed(name: str, parse: Callable[[str], Parsed], text: str) -> Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{name} cannot be read: {error}.") from None
