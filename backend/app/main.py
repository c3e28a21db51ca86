"""Puts the parts together. The only file that knows everyone."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker

from app.core.db import connect_for_writing, create_engine
from app.core.pool import BoundedPool
from app.core.security import TokenKey
from app.core.settings import ConfigurationError, Settings
from app.core.web.app import App
from app.core.web.openapi import operation_id
from app.core.web.reference import add_reference
from app.features.auth import api as auth
from app.features.auth.dependencies import SignInLimits
from app.features.auth.service import Accounts
from app.features.generate import api as generate
from app.features.generate.dependencies import GenerateLimit
from app.features.generate.service import Studio
from app.features.health import api as health
from app.features.keys import api as keys
from app.features.keys.cache import CallerCache
from app.features.usage import api as usage
from app.features.usage.ledger import Ledger
from app.features.usage.ledger.writer import Writer
from app.providers.stub import StubProvider
from app.ratelimit.memory import MemoryLimiter

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
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _opened(settings, database_url, token_key, clock) as parts:
            for name, part in parts.items():
                setattr(app.state, name, part)
            yield

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
    app.state.settings = settings
    # Among the app's own routes and not included: inclusion would match its path twice more on every call.
    app.router.routes.extend(generate.lean.routes)
    for router in (auth.router, keys.router, generate.router, usage.router, health.router):
        app.include_router(router)
    add_reference(app)
    return app


@asynccontextmanager
async def _opened(
    settings: Settings, database_url: str, token_key: TokenKey, clock: Callable[[], float]
) -> AsyncIterator[dict[str, Any]]:
    """Everything that dependencies find in `app.state`, open; closed at the end, the ledger first."""
    engine = create_engine(database_url, pool_size=settings.database_pool_size)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    hashing = BoundedPool.for_cores_left(processes=settings.workers, queue_max=settings.hash_queue_max, name="hash")
    drawing = BoundedPool.for_cores_left(processes=settings.workers, queue_max=settings.drawing_queue_max, name="draw")
    writer = Writer(partial(connect_for_writing, database_url))
    ledger = Ledger(writer, queue_max=settings.record_queue_max, deadline_seconds=settings.record_deadline_seconds)
    limiter, stub = MemoryLimiter(clock=time.monotonic), StubProvider(drawing)
    token_seconds = settings.login_token_minutes * 60
    ledger.open()
    try:
        yield {
            "engine": engine,
            "sessions": sessions,
            "accounts": Accounts(sessions, hashing, token_key, token_seconds, settings.password_bytes_min, clock),
            "sign_in_limits": SignInLimits.of(settings, limiter),
            "generate_limit": GenerateLimit.of(settings, limiter),
            "callers": CallerCache(),
            "studio": Studio(sessions, ledger, {"live": stub, "test": stub}, settings.public_url, clock),
        }
    finally:
        await ledger.close()
        hashing.close()
        drawing.close()
        await engine.dispose()
