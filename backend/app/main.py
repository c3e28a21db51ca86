"""Puts the parts together. The only file that knows everyone."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker

from app.core.db import connect_for_writing, create_engine
from app.core.metrics import Metrics
from app.core.pool import BoundedPool
from app.core.security import TokenKey
from app.core.settings import ConfigurationError, Settings
from app.core.web.app import App
from app.core.web.door import Door
from app.core.web.openapi import operation_id
from app.core.web.reference import add_reference
from app.features.auth import api as auth
from app.features.auth.dependencies import SignInLimits
from app.features.auth.service import Accounts
from app.features.generate import api as generate
from app.features.generate.dependencies import GenerateLimits
from app.features.generate.service import Studio
from app.features.health import api as health
from app.features.keys import api as keys
from app.features.keys.cache import CallerCache
from app.features.keys.dependencies import UnknownKeyLimit
from app.features.usage import api as usage
from app.features.usage.ledger import Ledger
from app.features.usage.ledger.writer import Writer
from app.providers.stub import StubProvider
from app.ratelimit import Limiter
from app.ratelimit.fallback import FallbackLimiter
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.redis import RedisLimiter, open_redis

_DESCRIPTION = """An image-generation API platform that anyone can run: sign up, create an API key, send a prompt, get a
picture. Errors are `application/problem+json`, with a stable `code`."""


def create_app(settings: Settings, *, clock: Callable[[], float] = time.time) -> FastAPI:
    """The application on these settings. Opens nothing before its lifespan starts, and closes all of it at the end.

    Needs `database_url` and a secret: raises ConfigurationError without either. `clock` is the time that tokens and ids
    are made from, in seconds since 1970.
    """
    if settings.database_url is None:
        raise ConfigurationError("DATABASE_URL is missing")
    database_url, token_key = settings.database_url.get_secret_value(), TokenKey.derive(settings.signing_secret)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with _opened(settings, app.state.metrics, database_url, token_key, clock) as parts:
            for name, part in parts.items():
                setattr(app.state, name, part)
            yield {"door": app.state.door}

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
    app.state.door = Door(settings.requests_max, app.state.metrics, proxies=settings.trusted_proxies)
    # Among the app's own routes and not included: inclusion would match its path twice more on every call.
    app.router.routes.extend(generate.lean.routes)
    for router in (auth.router, keys.router, generate.router, usage.router, health.router):
        app.include_router(router)
    add_reference(app)
    return app


@asynccontextmanager
async def _opened(
    settings: Settings, metrics: Metrics, database_url: str, token_key: TokenKey, clock: Callable[[], float]
) -> AsyncIterator[dict[str, Any]]:
    """Everything that dependencies find in `app.state`, open; closed at the end, the ledger first."""
    queues = {"hash": settings.hash_queue_max, "draw": settings.drawing_queue_max}
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
        sessions, stub = async_sessionmaker(engine, expire_on_commit=False), StubProvider(drawing)
        token_seconds = settings.login_token_minutes * 60
        yield {
            "engine": engine,
            "sessions": sessions,
            "accounts": Accounts(sessions, hashing, token_key, token_seconds, settings.password_bytes_min, clock),
            "sign_in_limits": SignInLimits.of(settings, limiter),
            "unknown_key_limit": UnknownKeyLimit.of(settings, limiter),
            "generate_limits": GenerateLimits.of(settings, limiter),
            "callers": CallerCache(),
            "studio": Studio(sessions, ledger, {"live": stub, "test": stub}, settings.public_url, clock),
        }


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
