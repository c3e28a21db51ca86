"""The services of a process without a worker, on a database of their own, and jobs that a test draws by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
from app.assembly import Externals, open_services
from app.catalogue.file import read_catalogue
from app.core.settings import Settings
from app.generations.collaborators import Generations
from app.generations.jobs import work
from app.generations.jobs.drawing import JobDrawing
from app.generations.ledger.queue import PendingRecord
from app.services import Services
from pydantic import SecretStr
from tests.generations.jobs.lanes import new_job
from tests.harness import Key, looks
from tests.standins.gemini import MODEL, GeminiStandIn
from tests.standins.wire import serving
from tests.version_before.history import connected

PROVIDER_KEY = "a-key-of-the-provider"
_ROUTE = """
[models.{model}]
[[models.{model}.routes]]
provider = "gemini"
base_url = "{url}"
model = "{drawn_by}"
key = "GEMINI_API_KEY"
{more}
"""


async def add_key(database: asyncpg.Connection, suffix: str = "28fm63cjp43w44255s68") -> Key:
    """A live key of a new account, without a server."""
    await database.execute(
        "insert into users (id, email, password_hash) values ($1, $1 || '@example.com', 'none')", f"usr_{suffix}"
    )
    await database.execute(
        """
        insert into api_keys (id, user_id, account_id, name, environment, prefix, key_hash)
        values ($1, 'usr_' || substr($1, 5), 'acc_' || substr($1, 5), 'website', 'live', 'nb_live_12345678', sha256(''))
        """,
        f"key_{suffix}",
    )
    return Key(f"key_{suffix}", "")


@dataclass(frozen=True)
class Drawn:
    """Open services, the provider that they draw by, a key, and a connection to their database."""

    services: Services
    provider: GeminiStandIn
    key: Key
    database: asyncpg.Connection
    pictures: Path

    @property
    def generations(self) -> Generations:
        return self.services.generations

    def files(self, record: PendingRecord) -> set[str]:
        """The names of the stored files of this job, without its id."""
        return {each.name.removeprefix(record.id) for each in self.pictures.rglob(f"{record.id}.*")}

    async def record(self, *, model: str = "banana", images: int = 1) -> PendingRecord:
        """A job that waits."""
        record = new_job(self.key, images=images)
        record.size, record.provider, record.model = "1024x1024", "gemini", model
        await self.generations.ledger.record(record)
        return record

    async def take(self, **changed: Any) -> JobDrawing:
        """The only job that waits, in the hands of a worker; `changed` are fields of its process's lifetime."""
        [job] = await work.take(self.generations, jobs_max=10, account_most=100, key_most=100)
        lifetime = replace(self.generations.lifetime, **changed)
        return JobDrawing(replace(self.generations, lifetime=lifetime), job, self.services.limiter)

    async def lapse(self, **options: object) -> None:
        """Time goes by until every lease is over, and the sweep has decided; `may_pay_twice=True` is what the rows'
        models say.
        """
        await self.database.execute(
            "update generations set lease_until = now() - interval '1 s', options = $1 where status = 'processing'",
            json.dumps(options),
        )
        await work.sweep(self.generations)

    async def row(self, record: PendingRecord) -> asyncpg.Record:
        found = await self.database.fetchrow("select * from generations where id = $1", record.id)
        assert found is not None
        return found

    async def until_asked(self, times: int = 1) -> None:
        """Returns once the provider was asked so often."""
        for _ in looks():
            if len(self.provider.seen) >= times:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(len(self.provider.seen))


@asynccontextmanager
async def drawn_by_hand(settings: Settings, database_url: str, folder: Path) -> AsyncIterator[Drawn]:
    """The services on this database, with the models `banana` and `few`, whose route draws one job at a time."""
    provider = GeminiStandIn(api_key=PROVIDER_KEY)
    changed = settings.model_copy(update={"database_url": SecretStr(database_url), "data_dir": folder})
    async with serving(provider.answer) as url, connected(database_url) as database:
        text = "".join(
            _ROUTE.format(model=model, url=url, drawn_by=MODEL, more=more)
            for model, more in {"banana": "", "few": "jobs_max = 1"}.items()
        )
        catalogue = read_catalogue(
            f'default = "banana"\n{text}', find_secret=lambda _: SecretStr(PROVIDER_KEY), calls_max=8
        )
        async with open_services(changed, Externals(catalogue=catalogue)) as services:
            yield Drawn(services, provider, await add_key(database), database, folder / "pictures")
