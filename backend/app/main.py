"""The application: routers, pages and error formats on the services that its lifespan opens."""

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import FastAPI

from app import __version__
from app.assembly import Externals, open_services, require_database_url
from app.console import errors as console_errors
from app.console.pages import PAGES, ROUTERS
from app.console.rendering import Console
from app.core.bounds import BODY_BYTES_MAX, IMAGE_BYTES_MAX
from app.core.logs import logger, write_pending_lines
from app.core.metrics import Metrics
from app.core.settings import Settings
from app.features.auth import api as auth
from app.features.base_url import base_url_error_or
from app.features.billing import api as billing
from app.features.billing import checkout, plans, webhooks
from app.features.chat import api as chat
from app.features.gemini import api as gemini
from app.features.gemini.dependencies import answer_error as google_error
from app.features.gemini.dependencies import google_error_or
from app.features.generate import api as generate
from app.features.health import api as health
from app.features.keys import api as keys
from app.features.models import api as models
from app.features.openai import api as openai
from app.features.openai.dependencies import answer_error as openai_error
from app.features.openai.dependencies import answer_problem as openai_problem
from app.features.uploads import api as uploads
from app.features.usage import api as usage
from app.generations.lifetime import lifetime_of
from app.payments import WEBHOOK_PATH
from app.storage.configured import image_origins
from app.web.app import App
from app.web.connections import Connections
from app.web.cors import CorsPolicy
from app.web.openapi import operation_id
from app.web.overload import OverloadGuard
from app.web.prepared_refusals import PreparedRefusals
from app.web.reference import add_reference
from app.web.state import BodyBounds, LifespanState, WebSettings

_DESCRIPTION = """An image-generation API platform that anyone can run: sign up, create an API key, send a prompt, get a
image. Errors are `application/problem+json`, with a stable `code`."""

_api_problem = google_error_or(openai_problem)
_ERROR_FORMATS = (
    (re.compile(gemini.PATHS, re.DOTALL), google_error),
    (re.compile(f"{openai.PATHS}|{re.escape(chat.ROUTE)}|{models.PATHS}"), google_error_or(openai_error)),
    (re.compile(r"/v1(?:/.*)?", re.DOTALL), _api_problem),
    (console_errors.PATHS, base_url_error_or(console_errors.answer_error, api_error=_api_problem, are_pages=True)),
    (
        console_errors.OTHER_PATHS,
        base_url_error_or(console_errors.answer_browser_error, api_error=_api_problem, are_pages=False),
    ),
)


_TEXT_BYTES_MAX = 256 * 1024
"""32,000 characters of any kind, and what else a request holds."""


def _body_bounds(bytes_max: int) -> Sequence[tuple[re.Pattern[str], BodyBounds]]:
    text, with_images = _TEXT_BYTES_MAX, BodyBounds(_TEXT_BYTES_MAX, bytes_max)
    model = "/v1(?:beta)?/models/.+"
    google, form = f"{model}:(?:generateContent|streamGenerateContent)", "/playground(?:/jobs)?"
    return (
        (re.compile("/v1/generate"), BodyBounds(BODY_BYTES_MAX, bytes_max)),
        (re.compile(f"{re.escape(openai.ROUTE)}|{model}:predict", re.DOTALL), BodyBounds(text, text)),
        (re.compile(re.escape(WEBHOOK_PATH)), BodyBounds(text, text)),
        (re.compile("/v1/uploads"), BodyBounds(text, min(IMAGE_BYTES_MAX + BODY_BYTES_MAX, bytes_max))),
        (re.compile(f"/v1/images(?:/edits)?|/v1/chat/completions|{google}|{form}", re.DOTALL), with_images),
    )


def _web_settings(settings: Settings, externals: Externals) -> WebSettings:
    bounds = externals.edge_bounds
    if bounds.response_seconds is None:
        bounds = replace(bounds, response_seconds=lifetime_of(settings).response_seconds)
    return WebSettings(
        settings.public_url,
        settings.trusted_proxies,
        _ERROR_FORMATS,
        public_url_is_set="public_url" in settings.model_fields_set,
        cors=CorsPolicy.of(settings.cors_origins),
        logs_addresses=settings.log_client_address,
        not_offered=openai.NOT_OFFERED,
        body_bounds=_body_bounds(settings.body_bytes_max_with_images),
        bounds=bounds,
    )


def create_app(settings: Settings, externals: Externals | None = None, *, metrics: Metrics | None = None) -> FastAPI:
    """The application on these settings. Its lifespan opens the services, and closes them at the end.

    Raises ConfigurationError without `database_url` or a secret.
    """
    require_database_url(settings)
    externals, metrics = externals or Externals(), metrics or Metrics()
    guard = OverloadGuard(settings.requests_max, metrics, proxies=settings.trusted_proxies)
    web = _web_settings(settings, externals)
    app = App(
        title="NanoBanana",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        lifespan=lambda _app: _lifespan(settings, externals, metrics, guard, web),
        overload_guard=guard,
        cors=web.cors,
        is_traced=bool(settings.otel_exporter_otlp_endpoint),
    )
    _add_routes(app)
    return app


@asynccontextmanager
async def _lifespan(
    settings: Settings, externals: Externals, metrics: Metrics, guard: OverloadGuard, web: WebSettings
) -> AsyncIterator[LifespanState]:
    most = settings.connections_per_address_max
    connections = Connections(web.bounds, metrics, per_address_max=most, draining=externals.draining)
    console = Console(settings, PAGES, image_origins=image_origins(settings))
    async with open_services(settings, externals, metrics=metrics) as services:
        logger.info("worker_started", pid=os.getpid())
        yield {
            "overload_guard": guard,
            "connections": connections,
            "prepared_refusals": await PreparedRefusals.prepare(
                {"web": web, "console": console}, ending=openai_problem
            ),
            "web": web,
            "services": services,
            "console": console,
            "blobs": services.generations.blobs,
            "tracing": services.tracing,
        }
    guard.close()
    connections.close()
    logger.info("worker_stopped", pid=os.getpid())
    write_pending_lines()  # uvicorn ends a worker by the signal that it got, past everything that runs at an exit


def _add_routes(app: App) -> None:
    # Among the app's own routes and not included: the dispatcher of fast routes looks only there.
    app.router.routes.extend(generate.fast_router.routes)
    dialects, money = (generate, gemini, models, openai, chat), (billing, plans, checkout, webhooks)
    for each in (auth, keys, *dialects, uploads, usage, *money, health):
        app.include_router(each.router)
    for router in ROUTERS:
        app.include_router(router)
    add_reference(app)
