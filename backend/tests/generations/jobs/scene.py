"""A deployment of its own, whose jobs a test accepts and works on itself, below HTTP."""

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
from app.core.blobs import Blob
from app.generations import uploads
from app.generations.collaborators import Generations
from app.generations.jobs import work
from app.generations.jobs.accept import accept_job
from app.generations.jobs.drawing import JobDrawing
from app.generations.jobs.job import Accepted, Job, JobTerms
from app.generations.spec import Caller, GenerationSpec
from app.generations.sweep import Sweeper
from app.models import Upload
from app.ratelimit.memory import MemoryLimiter
from tests.features.sent_images import png
from tests.generations.jobs.lanes import wrong_lanes
from tests.standins.forms import read_form
from tests.standins.openai import OpenAIStandIn

ACCOUNT, KEYS = f"acc_{'0' * 20}", {"live": f"key_{'1' * 20}", "test": f"key_{'2' * 20}"}
FETCHED = png(colour="navy")
PROVIDER_KEY = "the-key-of-the-endpoint"
MODELS = """
default = "picture"
currency = "USD"

[models.picture]
price = "0.05"
aliases = ["nickname"]

[[models.picture.routes]]
provider = "openai"
base_url = "{url}/v1"
model = "{model}"
key = "OPENAI_API_KEY"
capabilities = ["edit", "mask", "references:16"]
"""
ROWS = "select * from generations where request_id = $1 order by id"


@dataclass
class Scene:
    """A deployment of its own, with one account, whose jobs the test accepts and works on itself."""

    generations: Generations
    sweeper: Sweeper
    provider: OpenAIStandIn
    page: str
    """An `https` URL of an address that ALLOW_NETWORKS names, which leads to FETCHED."""
    database: asyncpg.Connection
    caller: Caller

    async def accept(self, *images: Blob | str, once: str | None = None, seconds: float = 60, **more: Any) -> Accepted:
        return await accept_job(
            self.generations,
            caller=self.caller,
            spec=GenerationSpec(**{"prompt": "A cute banana", "size": "auto", "images": images, **more}),
            route="/v1/generate",
            terms=JobTerms(expires_seconds=seconds),
            idempotency_key=once,
        )

    async def take(self) -> Job:
        [job] = await work.take(self.generations, jobs_max=1, account_most=100, key_most=100)
        return job

    async def draw(self, job: Job) -> None:
        await JobDrawing(self.generations, job, MemoryLimiter(clock=time.monotonic)).draw()

    async def work(self) -> asyncpg.Record:
        """Takes the oldest job and draws it. What its row says then."""
        job = await self.take()
        await self.draw(job)
        assert await wrong_lanes(self.database) == []
        return await self.row(job.id)

    async def row(self, generation_id: str) -> asyncpg.Record:
        """Of its first image."""
        return (await self.rows(generation_id))[0]

    async def rows(self, request_id: str) -> list[asyncpg.Record]:
        return list(await self.database.fetch(ROWS, request_id))

    async def save(self, content: bytes) -> Upload:
        return await uploads.save(
            self.generations, caller=self.caller, sent=Blob(content), first_frame=False, pointer="#"
        )

    @property
    def sent(self) -> list[bytes]:
        """The images of the provider's last call, in order."""
        return [each.content for each in read_form(self.provider.seen[-1])[1]]

    async def kept(self) -> dict[str, timedelta]:
        """How long each upload that there is is kept from now on, by id; each has its file in the store."""
        rows = await self.database.fetch("select *, expires_at - now() as left from uploads order by id")
        for row in rows:
            assert await self.generations.store.get(f"{row['id']}.{row['format']}", end=0) is not None
        return {row["id"]: row["left"] for row in rows}


def raising(end: BaseException | None) -> Callable[..., Coroutine[Any, Any, None]]:
    """A call that raises this, or returns None."""

    async def call(*_arguments: object, **_named: object) -> None:
        if end is not None:
            raise end

    return call
