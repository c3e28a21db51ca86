"""One deployment that takes payments, for all tests of a module."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial

import pytest
from app.billing.healing import PurchaseSweeper
from app.billing.purchases import Purchases
from app.catalogue.configured import catalogue_of
from app.core.db import connect_for_writing, create_engine
from app.core.metrics.billing import BillingMetrics
from app.core.metrics.families import Families
from app.core.settings import Settings
from app.payments import PlanPrice
from app.payments.opened import open_stripe
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.features.billing.shop import MODELS, SECRETS, Buyer, Shop, SlowStripe
from tests.harness import fresh_database, running
from tests.standins.wire import serving


@pytest.fixture(scope="module")
def own_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database for these tests alone: the sweep looks at all its accounts."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="module")
def public_url(settings: Settings) -> str:
    """Where the deployment is, as it says."""
    return settings.public_url


@pytest.fixture(scope="module")
async def shop(
    settings: Settings, public_url: str, own_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """The deployment, with both secrets of its webhook."""
    models = tmp_path_factory.mktemp("shop") / "models.toml"
    models.write_text(MODELS)
    stripe = SlowStripe()
    async with serving(stripe.answer) as stripe.url:
        changes = {
            "database_url": SecretStr(own_database_url),
            "public_url": public_url,
            "models_file": models,
            "billing": "on",
            "stripe_secret_key": SecretStr(stripe.key),
            "stripe_webhook_secret": SecretStr(",".join(SECRETS)),
            "stripe_api_url": stripe.url,
        }
        changed = Settings(**{**settings.model_dump(), **changes})
        engine, catalogue = create_engine(own_database_url, pool_size=5), catalogue_of(changed)
        database = await connect_for_writing(own_database_url)
        async with open_stripe(changed) as client, running(changed) as http:
            assert client is not None
            offers = catalogue.plans.values()
            plans = [PlanPrice(name=each.name, title=each.title, monthly_price=each.price) for each in offers]
            await client.sync(plans, "USD", webhook_url=None)
            sessions = async_sessionmaker(engine, expire_on_commit=False)
            purchases = Purchases(client, sessions, catalogue, timedelta(days=7), BillingMetrics(Families()))
            sweeper = PurchaseSweeper(purchases, partial(connect_for_writing, own_database_url))
            yield Shop(http, stripe, database, sweeper)
        await database.close()
        await engine.dispose()


@pytest.fixture
async def buyer(shop: Shop) -> Buyer:
    """A new account. Nothing is left to be delivered."""
    shop.stripe.events.clear()
    return await shop.buyer()
