"""The deployment of tests of jobs below HTTP."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from hashlib import sha256

import pytest
from app.assembly import open_services
from app.core.db import connect_for_writing
from app.core.settings import Settings
from app.generations.spec import Caller
from app.generations.sweep import Sweeper
from pydantic import SecretStr
from tests.generations.jobs.scene import ACCOUNT, FETCHED, KEYS, MODELS, PROVIDER_KEY, Scene
from tests.harness import fresh_database
from tests.standins.authority import Authority
from tests.standins.openai import MODEL, OpenAIStandIn
from tests.standins.wire import Reply, serving


@pytest.fixture(scope="session")
def own_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database for these tests alone: a worker takes whatever waits."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="session")
async def deployment(
    settings: Settings, own_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    folder, provider = tmp_path_factory.mktemp("jobs"), OpenAIStandIn(api_key=PROVIDER_KEY)
    authority = Authority(folder)
    async with (
        serving(provider.answer) as url,
        serving(lambda _seen: Reply(FETCHED), tls=authority.server("localhost")) as pages,
    ):
        (folder / "models.toml").write_text(MODELS.format(url=url, model=MODEL))
        changes = {
            "database_url": SecretStr(own_database_url),
            "data_dir": folder,
            "models_file": folder / "models.toml",
            "openai_api_key": SecretStr(PROVIDER_KEY),
            "allow_networks": "127.0.0.0/8,::1/128",
            "egress_ca_file": authority.ca_file,
        }
        database = await connect_for_writing(own_database_url)
        async with open_services(Settings(**{**settings.model_dump(), **changes})) as services:
            generations = services.generations
            sweeper = Sweeper(generations, services.engine, None, services.metrics)
            caller = Caller(KEYS["live"], ACCOUNT, "live", 0)
            page = f"{pages.replace('127.0.0.1', 'localhost')}/a.png?token=canary"
            yield Scene(generations, sweeper, provider, page, database, caller)
        await database.close()


@pytest.fixture
async def scene(deployment: Scene) -> AsyncIterator[Scene]:
    """With an account that is active, two keys, and nothing else."""
    deployment.provider.seen.clear()
    await deployment.database.execute("insert into accounts (id) values ($1)", ACCOUNT)
    key = "insert into api_keys (id, account_id, name, environment, prefix, key_hash) values ($1, $2, '', $3, $1, $4)"
    for environment, key_id in KEYS.items():
        await deployment.database.execute(key, key_id, ACCOUNT, environment, sha256(key_id.encode()).digest())
    yield replace(deployment)
    everything = "generations, claims, usage, lanes, lane_keys, uploads, api_keys, accounts"
    await deployment.database.execute(f"truncate {everything} cascade")
