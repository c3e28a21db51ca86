"""Stripe, opened on the settings."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module

from app.core.egress import Egress
from app.core.settings import Settings
from app.payments.stripe import Stripe


@asynccontextmanager
async def open_stripe(settings: Settings, *, clock: Callable[[], float] = time.time) -> AsyncIterator[Stripe | None]:
    """Stripe with the key of the settings; None without one, and then its SDK is not imported."""
    if settings.stripe_secret_key is None:
        yield None
        return
    open_sdk = import_module("app.payments.sdk").open_sdk
    async with open_sdk(
        settings.stripe_secret_key.get_secret_value(),
        settings.stripe_api_url,
        Egress.of(settings),
        is_live=settings.stripe_is_live,
        webhook_secrets=settings.stripe_webhook_secrets,
        clock=clock,
    ) as sdk:
        yield Stripe(sdk, has_tax=settings.stripe_tax)
