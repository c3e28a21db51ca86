"""Puts the parts together. The only file that knows everyone."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker

from app.console import errors as pages_of_errors
from app.console.pages import ROUTERS as PAGES
from app.console.site import Site
from app.core.db import SessionMaker, connect_for_writing, create_engine
from app.core.metrics import Metrics
from app.core.pool import BoundedPool
from app.core.security import KeyEnvironment, TokenKey
from app.core.settings import ConfigurationError, Settings
from app.core.web.app import App
from app.core.web.door import Door
from app.core.web.openapi import operation_id
from app.core.web.reference import add_reference
from app.core.web.refusals import Refusals
from app.features.auth import api as auth
from app.features.auth.dependencies import SignInLimits
from app.features.auth.service import Accounts
from app.features.generate import api as generate
from app.features.generate.dependencies import GenerateLimits
from app.features.generate.drawing import LEASE_MARGIN_SECONDS
from app.features.generate.pictures import Sweeper
from app.features.generate.studio import Studio
from app.features.health import api as health
from app.features.keys import api as keys
from app.features.keys.cache import CallerCache
from app.features.keys.dependencies import UnknownKeyLimit
from app.features.openai import api as openai
from app.features.openai.dependencies import answer_error as answer_as_openai
from app.features.usage import api as usage
from app.features.usage.ledger import Ledger
from app.features.usage.ledger.writer import Writer
from app.providers import Provider
from app.providers.configured import configured_provider
from app.providers.stub import StubProvider
from app.ratelimit import Limiter
from app.ratelimit.fallback import FallbackLimiter
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.redis import RedisLimiter, open_redis
from app.storage.configured import configured_store, image_origins

_DESCRIPTION = """An image-generation API platform that anyone can run: sign up, create an API key, send a prompt, get a
picture. Errors are `application/problem+json`, with a stable `code`."""


def create_app(settings: Settings, *, clock: Callable[[], float] = time.time) -> FastAPI:
    """The application on these settings. Opens nothing before its lifespan starts, and closes all of it at the end.

    Raises ConfigurationError without `database_url` or a secret. `clock`, in seconds since 1970, dates tokens and ids.
    """
    if settings.database_url is None:
        raise ConfigurationError("DATABASE_URL is missing")
    database_url, token_key = settings.database_url.get_secret_value(), TokenKey.derive(settings.signing_secret)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with _opened(settings, app.state.metrics, database_url, token_key, clock) as parts:
            for name, part in parts.items():
                setattr(app.state, name, part)
            yield {"door": app.state.door, "refusals": await Refusals.prepare(app)}
        app.state.door.close()

    app = App(
        title="NanoBanana",
        version="0.1.0",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        lifespan=lifespan,
    )
    app.state.settings, app.state.metrics = settings, Metrics()
    app.state.site = Site(settings, image_origins=image_origins(settings))
    app.state.error_answers = (
        (re.compile(re.escape(openai.ROUTE)), answer_as_openai),
        (pages_of_errors.PATHS, pages_of_errors.answer_error),
    )
    app.state.door = Door(settings.requests_max, app.state.metrics, proxies=settings.trusted_proxies)
    # Among the app's own routes and not included: there they are found before any router looks.
    app.router.routes.extend(generate.lean.routes)
    for router in (auth.router, keys.router, generate.router, openai.router, usage.router, health.router, *PAGES):
        app.include_router(router)
    add_reference(app)
    return app


@asynccontextmanager
async def _opened(
    settings: Settings, metrics: Metrics, database_url: str, token_key: TokenKey, clock: Callable[[], float]
) -> AsyncIterator[dict[str, Any]]:
    """Everything that dependencies find in `app.state`, open; closed at the end, the ledger first."""
    # What was drawn elsewhere is paid: as much of it as can be on its way finds room to be decoded.
    paid = 0 if settings.uses_stub else 2 * settings.provider_calls_max
    queues = {"hash": settings.hash_queue_max, "draw": settings.drawing_queue_max + paid}
    async with AsyncExitStack() as stack:
        engine = create_engine(database_url, pool_size=settings.database_pool_size)
        stack.push_async_callback(engine.dispose)
        hashing, drawing = [
            BoundedPool.for_cores_left(processes=settings.workers, queue_max=queue_max, name=name)
            for name, queue_max in queues.items()
        ]
        stack.callback(hashing.close)
        stack.callback(drawing.close)
        limiter = await stack.enter_async_context(_limiter(settings, metrics))
        writer = Writer(partial(connect_for_writing, database_url))
        ledger = Ledger(writer, queue_max=settings.record_queue_max, deadline_seconds=settings.record_deadline_seconds)
        ledger.open()
        stack.push_async_callback(ledger.close)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        studio = await stack.enter_async_context(_studio(settings, sessions, ledger, drawing, clock))
        token_seconds, password_bytes_min = settings.login_token_minutes * 60, settings.password_bytes_min
        yield {
            "engine": engine,
            "sessions": sessions,
            "accounts": Accounts(
                sessions, hashing, token_key, token_seconds, settings.session_days, password_bytes_min, clock
            ),
            "sign_in_limits": SignInLimits.of(settings, limiter),
            "unknown_key_limit": UnknownKeyLimit.of(settings, limiter),
            "generate_limits": GenerateLimits.of(settings, limiter),
            "callers": CallerCache(),
            "studio": studio,
        }


@asynccontextmanager
async def _studio(
    settings: Settings, sessions: SessionMaker, ledger: Ledger, drawing: BoundedPool, clock: Callable[[], float]
) -> AsyncIterator[Studio]:
    """Whoever draws, and wherever pictures are kept; what nobody can ask for any more is swept meanwhile."""
    seconds = settings.generation_deadline_seconds
    async with configured_store(settings) as store, configured_provider(settings, pool=drawing) as live:
        providers: Mapping[KeyEnvironment, Provider] = {"live": live, "test": StubProvider(drawing, like=live)}
        studio = Studio(sessions, ledger, providers, drawing, store, settings.public_url, seconds, clock)
        sweeper = Sweeper(studio, seconds + LEASE_MARGIN_SECONDS, settings.image_retention_days)
        sweeping = asyncio.create_task(sweeper.run())
        try:
            yield studio
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})


@asynccontextmanager
async def _limiter(settings: Settings, metrics: Metrics) -> AsyncIterator[Limiter]:
    """Limits in Redis where there is one, and in this process where there is none or while it is out of reach."""
    own = MemoryLimiter(clock=time.monotonic, processes=settings.processes)
    if settings.redis_url is None:
        yield own
        return
    client, timeout_seconds = open_redis(settings.redis_url.get_secret_value()), settings.redis_timeout_ms / 1000
    shared = RedisLimiter(client, secret=settings.signing_secret, timeout_seconds=timeout_seconds)
    limiter = FallbackLimiter(shared, own, metrics)
    await limiter.open()
    try:
        yield limiter
    finally:
        await limiter.close()
