"""What a deployment has recorded, and its settings have to agree with: its currency, Stripe's mode, and plans."""

import asyncio
from collections.abc import Sequence
from functools import partial

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.subscriptions import find_plans_in_force
from app.catalogue.configured import catalogue_of
from app.checks import run_in_transaction
from app.core.settings import ConfigurationError, Settings
from app.models import Deployment, StripeMode


def claim(settings: Settings) -> None:
    """Makes the catalogue's currency and the mode of Stripe's key the deployment's, where it has none yet. Raises
    ConfigurationError where it has another: amounts of two currencies cannot be added up, and customers of test mode do
    not exist in live mode.
    """
    currency, mode = catalogue_of(settings).currency, _stripe_mode(settings)
    if settings.database_url is not None and (currency or mode):
        is_shared = settings.database_direct_url is not None
        action = partial(_claim, currency, mode)
        asyncio.run(run_in_transaction(settings.database_url.get_secret_value(), action, is_shared=is_shared))


def _stripe_mode(settings: Settings) -> StripeMode | None:
    if settings.stripe_secret_key is None:
        return None
    return "live" if settings.stripe_is_live else "test"


def find_gone_plans(settings: Settings) -> Sequence[str]:
    """A sentence of warning where accounts have plans that the catalogue does not have any more."""
    known, is_shared = catalogue_of(settings).plans, settings.database_direct_url is not None
    if settings.database_url is None:
        return []
    url = settings.database_url.get_secret_value()
    found = asyncio.run(run_in_transaction(url, find_plans_in_force, is_shared=is_shared))
    gone = [name for name in found if name not in known]
    sentence = f"Accounts have plans that MODELS_FILE has not: {', '.join(gone)}. They go on as they were."
    return [sentence] if gone else []


async def _claim(currency: str | None, mode: StripeMode | None, session: AsyncSession) -> None:
    for column, value in ((Deployment.currency, currency), (Deployment.stripe_mode, mode)):
        if value is not None:
            await session.execute(update(Deployment).where(column.is_(None)).values({column: value}))
    stored = (await session.execute(select(Deployment.currency, Deployment.stripe_mode))).one()
    if currency not in {None, stored.currency}:
        raise ConfigurationError(
            f"MODELS_FILE has prices in {currency}, but what this deployment has recorded is in {stored.currency}. "
            "Amounts of two currencies cannot be added up: use one database for each."
        )
    if mode not in {None, stored.stripe_mode}:
        raise ConfigurationError(
            f"STRIPE_SECRET_KEY is a key of Stripe's {mode} mode, but what this deployment has recorded is of "
            f"{stored.stripe_mode} mode. Set a key of {stored.stripe_mode} mode, "
            f"or use another database for {mode} mode."
        )
