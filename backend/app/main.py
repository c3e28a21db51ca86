"""Puts the parts together. The only file that knows everyone."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import async_sessionmaker
from starlette.exceptions import HTTPException

from app.core.db import create_engine
from app.core.errors import ApiError, answer
from app.core.pool import BoundedPool
from app.core.security import TokenKey
from app.core.settings import ConfigurationError, Settings
from app.core.web.middleware import Envelope, Gate
from app.core.web.openapi import DocumentedApp
from app.core.web.reference import add_reference
from app.features.auth import api as auth
from app.features.auth.dependencies import SignInLimits
from app.features.auth.service import Accounts
from app.features.generate import api as generate
from app.features.generate.dependencies import GenerateLimit
from app.features.generate.service import Studio
from app.features.health import api as health
from app.features.keys import api as keys
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
        engine = create_engine(database_url, pool_size=settings.database_pool_size)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        hashing = BoundedPool.for_cores_left(processes=settings.workers, queue_max=settings.hash_queue_max, name="hash")
        drawing = BoundedPool.for_cores_left(
            processes=settings.workers, queue_max=settings.drawing_queue_max, name="draw"
        )
        limiter = MemoryLimiter(clock=time.monotonic)
        stub = StubProvider(drawing)
        app.state.engine, app.state.sessions = engine, sessions
        app.state.accounts = Accounts(
            sessions, hashing, token_key, settings.login_token_minutes * 60, settings.password_bytes_min, clock
        )
        app.state.sign_in_limits = SignInLimits.of(settings, limiter)
        app.state.generate_limit = GenerateLimit.of(settings, limiter)
        app.state.studio = Studio(sessions, {"live": stub, "test": stub}, settings.public_url, clock)
        try:
            yield
        finally:
            hashing.close()
            drawing.close()
            await engine.dispose()

    app = DocumentedApp(
        title="NanoBanana",
        version="0.1.0",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        exception_handlers=dict.fromkeys((ApiError, HTTPException, RequestValidationError), answer),
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.add_middleware(Gate)
    app.add_middleware(Envelope)
    for feature in (auth, keys, generate, health):
        app.include_router(feature.router)
    add_reference(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
