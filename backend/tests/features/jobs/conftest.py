"""One running application for all tests of asynchronous generations, with a worker and a database of its own."""

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from app.assembly import Externals
from app.core.bounds import EdgeBounds
from app.core.settings import Settings
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from tests.features.generate.painted import PROVIDER_KEY
from tests.features.jobs.application import PER_ACCOUNT, WAITING_CALLERS_PER_ACCOUNT, WAITING_MAX, Application, Jobs
from tests.harness import fresh_database, running, sign_up
from tests.standins.openai import OpenAIStandIn
from tests.standins.wire import serving


@pytest.fixture(scope="package")
def database_of_jobs(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database whose jobs no other application draws."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="package")
async def application(
    settings: Settings, database_of_jobs: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Application]:
    """It works on few requests at a time, and on fewer than may wait."""
    provider = OpenAIStandIn(api_key=PROVIDER_KEY)
    async with serving(provider.answer) as url:
        changes = {
            "database_url": SecretStr(database_of_jobs),
            "data_dir": tmp_path_factory.mktemp("jobs"),
            "work": True,
            "image_provider": "openai",
            "openai_api_key": SecretStr(PROVIDER_KEY),
            "openai_base_url": f"{url}/v1",
            "openai_capabilities": "edit,mask,references:16",
            "requests_max": WAITING_CALLERS_PER_ACCOUNT - 1,
            "waiting_callers_max": 4 * WAITING_CALLERS_PER_ACCOUNT,
            "jobs_per_account": PER_ACCOUNT,
            "jobs_waiting_per_account": WAITING_MAX,
            "trusted_proxies": "127.0.0.0/8",  # whose connections are read after a refusal too
        }
        externals = Externals(edge_bounds=EdgeBounds(sweep_seconds=0.05))
        async with running(Settings(**{**settings.model_dump(), **changes}), externals) as client:
            yield Application(client, provider)


@pytest.fixture
async def jobs(application: Application) -> AsyncIterator[Jobs]:
    """The application with a caller of this test's own. At the end everything that it asked for is drawn."""
    account = await sign_up(application.client)
    jobs = Jobs(application.client, application.provider, account, await account.create_key())
    yield jobs
    await jobs.finish()


@pytest.fixture
async def jobs_database(database_of_jobs: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the application's database."""
    url = make_url(database_of_jobs).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    yield connection
    await connection.close()
