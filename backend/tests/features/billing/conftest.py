"""One deployment that takes payments, for all tests of a module."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from app.core.settings import Settings
from tests.features.billing.shop import MODELS, Buyer, Shop, open_shop
from tests.harness import fresh_database

TEAM = """
[plans.team]
price = "30"
allowance = "40"
pays = "afterwards"
"""


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
    """The deployment."""
    async with open_shop(settings, own_database_url, tmp_path_factory.mktemp("shop"), public_url=public_url) as shop:
        yield shop


@pytest.fixture
def empty_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database for one test."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture
async def own_shop(settings: Settings, empty_database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """A deployment of one test, which may move the clock of its Stripe. It also sells a plan that pays afterwards."""
    async with open_shop(settings, empty_database_url, tmp_path, models=MODELS + TEAM) as shop:
        yield shop


@pytest.fixture
async def buyer(shop: Shop) -> Buyer:
    """A new account. Nothing is left to be delivered."""
    shop.stripe.events.clear()
    return await shop.buyer()
