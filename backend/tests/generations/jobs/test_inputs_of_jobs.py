"""Images that go into jobs: what they are kept as until a worker sends them, and what is left of them afterwards."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, cast

import asyncpg
import pytest
from app.assembly import open_services
from app.core.blobs import Blob
from app.core.db import connect_for_writing
from app.core.errors import Invalid, Unavailable
from app.core.fetching import Fetcher
from app.core.settings import Settings
from app.generations import replay, uploads
from app.generations.collaborators import Generations, UploadBounds
from app.generations.errors import CallerChangedError, OutcomeUnknown, QueueFull
from app.generations.inputs import Inputs, keep_until
from app.generations.jobs import work
from app.generations.jobs.accept import accept_job
from app.generations.jobs.cancel import cancel
from app.generations.jobs.job import Accepted, Job, JobTerms
from app.generations.ledger import Ledger
from app.generations.spec import Caller, GenerationSpec, input_ids
from app.generations.sweep import Sweeper, delete_images
from app.generations.uploads import UploadNotFound, UploadsFull
from app.models import Generation, Upload
from app.providers import InputImage, Size
from app.storage import StoreUnavailable, read_whole
from pydantic import SecretStr
from tests.features.sent_images import mask_png, png
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.test_inputs import URL, FakeFetcher
from tests.harness import fresh_database
from tests.standins.forms import read_form
from tests.standins.openai import MODEL, OpenAIStandIn, failed
from tests.standins.wire import serving

ACCOUNT, KEYS = f"acc_{'0' * 20}", {"live": f"key_{'1' * 20}", "test": f"key_{'2' * 20}"}
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
ROW = "select status, error, inputs from generations where id = $1"


@dataclass
class Scene:
    """A deployment of its own, with one account, whose jobs the test accepts and works on itself."""

    generations: Generations
    sweeper: Sweeper
    provider: OpenAIStandIn
    database: asyncpg.Connection
    caller: Caller

    async def accept(self, *images: Blob | str, once: str | None = None, seconds: float = 60, **more: Any) -> Accepted:
        return await accept_job(
            self.generations,
            caller=self.caller,
            spec=GenerationSpec("A cute banana", more.pop("size", "auto"), images=images, **more),
            route="/v1/generate",
            terms=JobTerms(expires_seconds=seconds),
            idempotency_key=once,
        )

    async def take(self) -> Job:
        [job] = await work.take(self.generations, jobs_max=1, account_most=100, key_most=100)
        return job

    async def work(self) -> asyncpg.Record:
        """Takes the oldest job and draws it. What its row says then."""
        job = await self.take()
        await work.draw(self.generations, job)
        assert await wrong_lanes(self.database) == []
        return await self.row(job.id)

    async def row(self, generation_id: str) -> asyncpg.Record:
        [row] = await self.database.fetch(ROW, generation_id)
        return row

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


@pytest.fixture(scope="module")
def own_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database for these tests alone: a worker takes whatever waits."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="module")
async def deployment(
    settings: Settings, own_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    folder, provider = tmp_path_factory.mktemp("jobs"), OpenAIStandIn(api_key=PROVIDER_KEY)
    async with serving(provider.answer) as url:
        (folder / "models.toml").write_text(MODELS.format(url=url, model=MODEL))
        changes = {
            "database_url": SecretStr(own_database_url),
            "data_dir": folder,
            "models_file": folder / "models.toml",
            "openai_api_key": SecretStr(PROVIDER_KEY),
        }
        database = await connect_for_writing(own_database_url)
        async with open_services(Settings(**{**settings.model_dump(), **changes})) as services:
            generations = services.generations
            sweeper = Sweeper(generations, services.engine, None, services.metrics)
            caller = Caller(KEYS["live"], ACCOUNT, "live", 0)
            yield Scene(generations, sweeper, provider, database, caller)
        await database.close()


@pytest.fixture
async def scene(deployment: Scene) -> AsyncIterator[Scene]:
    """With an account that is active, two keys, and nothing else."""
    await deployment.database.execute("insert into accounts (id) values ($1)", ACCOUNT)
    key = "insert into api_keys (id, account_id, name, environment, prefix, key_hash) values ($1, $2, '', $3, $1, $4)"
    for environment, key_id in KEYS.items():
        await deployment.database.execute(key, key_id, ACCOUNT, environment, sha256(key_id.encode()).digest())
    yield replace(deployment)
    everything = "generations, claims, usage, lanes, lane_keys, uploads, api_keys, accounts"
    await deployment.database.execute(f"truncate {everything} cascade")


async def test_the_provider_gets_the_images_of_a_job_as_they_were_when_it_was_accepted(scene: Scene) -> None:
    pages: dict[str, bytes | Exception] = {URL: png(colour="navy")}
    scene.generations = replace(scene.generations, fetcher=cast(Fetcher, FakeFetcher(pages)))
    uploaded = await scene.save(png(colour="teal"))
    first = await scene.accept(Blob(png()))
    assert (await scene.work())["status"] == "delivered"
    drawn = await read_whole(scene.generations.store, f"{first.id}.png")
    before = set(await scene.kept())
    job = await scene.accept(URL, Blob(png()), uploaded.id, first.id, mask=Blob(mask_png(96, 64)))
    kept = await scene.kept()
    named = json.loads((await scene.row(job.id))["inputs"])
    assert [each.get("id") for each in named[2:4]] == [uploaded.id, first.id]
    assert {each["id"] for each in named if "kept_until" in each} == set(kept) - before
    assert [("role" in each, "kept_until" in each) for each in named] == [
        *((False, True), (False, True), (False, False), (False, False)),
        (True, True),
    ]
    assert all(each > timedelta(seconds=60) for each in kept.values())
    assert (await scene.work())["status"] == "delivered"
    assert scene.sent == [png(colour="navy"), png(), png(colour="teal"), drawn, scene.sent[-1]]
    assert [sha256(each).hexdigest() for each in scene.sent] == [each["sha256"] for each in named]
    assert set(await scene.kept()) == before, "what was kept for the job alone is deleted with its end"


async def test_what_is_not_recorded_leaves_nothing_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Blob(png()), Blob(png(colour="teal"))
    job = await scene.accept(*images, once="key")
    kept = list(await scene.kept())
    bounds = UploadBounds(3 * len(png()), timedelta(hours=1))
    full = replace(scene, generations=replace(scene.generations, upload_bounds=bounds))
    refusals: list[tuple[Scene, object, str, object, type[Exception] | None]] = [
        (scene, replay, "find", raising(None), None),  # another request takes the key after it was looked up
        *(
            (scene, Ledger, "record", raising(error), type(error))
            for error in (QueueFull(), Unavailable(), CallerChangedError())
        ),
        (full, Ledger, "record", raising(None), UploadsFull),  # the first of two images finds room
        (scene, scene.generations.store, "put", raising(StoreUnavailable()), StoreUnavailable),
    ]
    for deployment, target, name, instead, error in refusals:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, instead)
            if error is None:
                assert await deployment.accept(*images, once="key") == job._replace(is_replay=True)
            else:
                with pytest.raises(error):
                    await deployment.accept(*images)
        assert list(await scene.kept()) == kept, error
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", raising(OutcomeUnknown()))
        with pytest.raises(OutcomeUnknown):
            await scene.accept(*images)
    assert len(await scene.kept()) == 2 * len(kept), "it may have been recorded"


async def test_what_is_kept_for_jobs_in_parallel_counts_to_the_byte(scene: Scene) -> None:
    scene.generations = replace(scene.generations, upload_bounds=UploadBounds(7 * len(png()), timedelta(hours=1)))
    ends = await asyncio.gather(*(scene.accept(Blob(png())) for _ in range(20)), return_exceptions=True)
    assert Counter(type(each) for each in ends) == {Accepted: 7, UploadsFull: 13}
    assert await scene.database.fetchval("select sum(bytes) from uploads") == 7 * len(png())
    for _ in range(7):
        assert (await scene.work())["status"] == "delivered"
    assert await scene.kept() == {}


class Killed(BaseException):
    """Stands for the end of the process: nothing of the program runs after it."""


async def test_whatever_is_killed_before_a_job_is_recorded_is_swept(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target, name in ((scene.generations.store, "put"), (uploads, "_show"), (Ledger, "record")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, raising(Killed()))
            with pytest.raises(Killed):
                await scene.accept(Blob(png()))
        assert await scene.database.fetchval("select count(*) from uploads") == 1, name
        await scene.database.execute("update uploads set expires_at = now()")
        await scene.sweeper.sweep()
        assert await scene.database.fetchval("select count(*) from uploads") == 0, name


async def test_of_a_job_that_is_not_delivered_the_sweep_deletes_what_was_kept(scene: Scene) -> None:
    scene.provider.faults.append(failed(400, "invalid_value"))
    await scene.accept(Blob(png()))
    assert (await scene.work())["status"] == "failed"
    second = await scene.accept(Blob(png()))
    assert await cancel(scene.generations, request_id=second.id) == [second.id]
    waiting = await scene.accept(Blob(png()))
    assert len(await scene.kept()) == 3
    await scene.sweeper.sweep()
    [named] = json.loads((await scene.row(waiting.id))["inputs"])
    assert list(await scene.kept()) == [named["id"]]


async def test_what_was_kept_for_one_job_and_named_by_another_stays(scene: Scene) -> None:
    await scene.accept(Blob(png()), seconds=3600)
    [(upload_id, left)] = (await scene.kept()).items()
    second = await scene.accept(upload_id, seconds=1)
    assert [(await scene.work())["status"], (await scene.work())["status"]] == ["delivered", "delivered"]
    assert (scene.sent, input_ids(json.loads((await scene.row(second.id))["inputs"]))) == ([png()], [upload_id])
    [(same, still)] = (await scene.kept()).items()
    assert (same, still <= left) == (upload_id, True)


async def test_an_upload_that_is_named_lives_as_long_as_the_job_and_never_shorter(scene: Scene) -> None:
    uploaded = await scene.save(png())
    for left, seconds, least in ((10, 3600, 3600), (90_000, 60, 80_000)):
        await scene.database.execute("update uploads set expires_at = now() + make_interval(secs => $1)", left)
        await scene.accept(uploaded.id, mask=Blob(mask_png(96, 64)), seconds=seconds)
        assert (await scene.kept())[uploaded.id] > timedelta(seconds=least)
    await uploads.delete_one(scene.generations, caller=scene.caller, upload_id=uploaded.id)
    named = Inputs([InputImage(Blob(png()), "png", Size(96, 64))], recorded=[{"id": uploaded.id, "sha256": ""}])
    with pytest.raises(Invalid) as refused:  # it was deleted after it was read
        await keep_until(scene.generations, scene.caller, named, seconds=60)
    assert refused.value.members == {"errors": [{"pointer": "#/images/0", "detail": UploadNotFound.detail}]}


async def test_an_input_that_is_gone_when_a_job_is_drawn_fails_it_with_a_code_that_says_so(scene: Scene) -> None:
    drawn = await scene.accept(Blob(png()))
    with pytest.raises(Invalid) as refused:
        await scene.accept(drawn.id)
    assert "not delivered yet" in str(refused.value.members), "a job cannot wait for another"
    assert (await scene.work())["status"] == "delivered"
    uploaded = await scene.save(png(colour="teal"))
    jobs = [await scene.accept(*images) for images in ([drawn.id], [uploaded.id], [Blob(png())])]
    assert drawn.id in str((await scene.row(jobs[0].id))["inputs"])
    await delete_images(scene.generations, Generation.id == drawn.id)
    for upload_id in await scene.kept():
        await uploads.delete_one(scene.generations, caller=scene.caller, upload_id=upload_id)
    calls = len(scene.provider.seen)
    for _ in jobs:
        row = await scene.work()
        assert (row["status"], row["error"]) == ("failed", "input_gone")
    assert len(scene.provider.seen) == calls


async def test_while_the_store_cannot_be_read_a_job_waits_and_no_attempt_is_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generations.jobs.work._PAUSE_SECONDS", 0)
    await scene.accept(Blob(png()))
    with monkeypatch.context() as patch:
        patch.setattr(scene.generations.store, "get", raising(StoreUnavailable()))
        for _ in range(4):
            assert (await scene.work())["status"] == "queued"
    assert (await scene.work())["status"] == "delivered"
    job = await scene.accept(Blob(png()))
    taken = await scene.take()
    await scene.database.execute("update generations set expires_at = now() where id = $1", job.id)
    with monkeypatch.context() as patch:
        patch.setattr(scene.generations.store, "get", raising(StoreUnavailable()))
        await work.draw(scene.generations, taken)
    assert await work.take(scene.generations, jobs_max=1, account_most=100, key_most=100) == [], "not for ever"
