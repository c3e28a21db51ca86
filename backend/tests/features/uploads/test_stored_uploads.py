"""Uploads in the store: whatever dies in between, no file is left that nothing sweeps, and no row without its file."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from app.assembly import open_services
from app.core.blobs import Blob
from app.core.db import connect_for_writing
from app.core.image_settings import StoreName
from app.core.settings import Settings
from app.generations import erase, uploads, verify
from app.generations.collaborators import Generations
from app.generations.errors import InvalidApiKey
from app.generations.move import Move
from app.generations.spec import Caller
from app.generations.sweep import Sweeper
from app.generations.uploads import UploadNotFound
from app.generations.verify import Verification
from app.models import Upload
from app.storage import StoreUnavailable
from pydantic import SecretStr
from tests.conftest import SECRET
from tests.features.generate.stores import STORES, Deployment, deployed, other
from tests.features.uploads.test_uploads import png
from tests.harness import fresh_database

ACCOUNT = f"acc_{'0' * 20}"
CALLER = Caller(key_id=f"key_{'0' * 20}", account_id=ACCOUNT, environment="live", revision=0)
ROWS = "select count(*), count(*) filter (where is_stored) from uploads"


class Killed(Exception):
    """Stands for the end of the process: nothing of the program runs after it."""


@dataclass
class Scene:
    """A deployment with one account, whose generations service the test calls itself."""

    deployment: Deployment
    store: StoreName
    generations: Generations
    sweeper: Sweeper
    database: asyncpg.Connection

    async def save(self) -> Upload:
        return await uploads.save(self.generations, caller=CALLER, sent=Blob(png()), first_frame=False, pointer="#")

    async def rows(self) -> tuple[int, int]:
        """All, and those that are stored."""
        rows, stored = await self.database.fetchrow(ROWS) or (0, 0)
        return rows, stored

    def files(self, store: StoreName | None = None) -> list[str]:
        if (store or self.store) == "s3":
            return sorted(self.deployment.bucket.buckets["pictures"])
        return sorted(each.name for each in (self.deployment.data_dir / "pictures").rglob("upl_*"))

    async def expire(self) -> None:
        await self.database.execute("update uploads set expires_at = now()")

    async def faults(self) -> list[tuple[str, str]]:
        verification = Verification(self.deployment.sessions, self.deployment.stores[self.store])
        return [(fault.name, fault.kind) async for fault in verification.faults()]


@asynccontextmanager
async def opened(deployment: Deployment, store: StoreName) -> AsyncIterator[Scene]:
    settings = Settings(**deployment.settings, image_store=store, secret_key=SecretStr(SECRET))
    database = await connect_for_writing(deployment.database_url)
    async with open_services(settings) as services:
        sweeper = Sweeper(services.generations, services.engine, None, services.metrics)
        yield Scene(deployment, store, services.generations, sweeper, database)
    await database.close()


@pytest.fixture(scope="module")
def own_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database for these tests alone."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="module")
async def scenes(own_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Scene]]:
    """One for each store, on the same database."""
    folder = tmp_path_factory.mktemp("uploads")
    async with deployed(own_database_url, folder) as deployment, AsyncExitStack() as stack:
        yield {store: await stack.enter_async_context(opened(deployment, store)) for store in STORES}


@pytest.fixture
async def scene(
    request: pytest.FixtureRequest, scenes: dict[str, Scene], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    """With an account that is active and has nothing."""

    async def no_pause(_seconds: float) -> None: ...

    monkeypatch.setattr(verify, "_pause", no_pause)
    scene = scenes[getattr(request, "param", "disk")]
    await scene.database.execute("insert into accounts (id) values ($1)", ACCOUNT)
    yield scene
    await scene.database.execute("truncate uploads, erasures, balances; delete from accounts")
    for store in STORES:
        for name in scene.files(store):
            await scene.deployment.stores[store].delete(name)


def kill(patch: pytest.MonkeyPatch, target: object, name: str, *, before: bool = True) -> None:
    """The process ends when it calls this, or when that has been done."""
    call: Any = getattr(target, name)

    async def killed(*arguments: Any, **named: Any) -> None:
        if not before:
            await call(*arguments, **named)
        raise Killed

    patch.setattr(target, name, killed)


@pytest.mark.parametrize("scene", STORES, indirect=True)
async def test_whatever_dies_in_between_is_swept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    store = type(scene.generations.store)
    for target, name, before, rows, files in (
        (store, "put", True, (1, 0), 0),
        (store, "put", False, (1, 0), 1),
        (uploads, "_show", True, (1, 0), 1),
    ):
        with monkeypatch.context() as patch:
            kill(patch, target, name, before=before)
            with pytest.raises(Killed):
                await scene.save()
        assert (await scene.rows(), len(scene.files())) == (rows, files), "the bytes are still counted"
        [upload_id] = [each["id"] for each in await scene.database.fetch("select id from uploads")]
        with pytest.raises(UploadNotFound):
            await uploads.open_upload(scene.generations, caller=CALLER, upload_id=upload_id)
        assert await scene.faults() == [], "it may be on its way"
        await scene.sweeper.sweep()
        assert len(scene.files()) == files
        await scene.expire()
        await scene.sweeper.sweep()
        assert (await scene.rows(), scene.files()) == ((0, 0), [])


async def test_a_sweep_that_dies_between_file_and_row_is_ended_by_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await scene.save()
    await scene.expire()
    with monkeypatch.context() as patch:
        kill(patch, type(scene.generations.store), "delete", before=False)
        with pytest.raises(Killed):
            await scene.sweeper.sweep()
    assert (await scene.rows(), scene.files()) == ((1, 1), [])
    with pytest.raises(UploadNotFound):
        await uploads.open_upload(scene.generations, caller=CALLER, upload_id=kept.id)
    await scene.sweeper.sweep()
    assert await scene.rows() == (0, 0)


async def test_an_upload_that_cannot_be_stored_counts_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(type(scene.generations.store), "put", fail)
        with pytest.raises(StoreUnavailable):
            await scene.save()
    assert (await scene.rows(), scene.files()) == ((0, 0), [])


@pytest.mark.parametrize("scene", STORES, indirect=True)
async def test_an_upload_is_verified_copied_and_read_like_any_image(scene: Scene) -> None:
    upload = await scene.save()
    name, elsewhere = f"{upload.id}.png", other(scene.store)
    read = await uploads.open_upload(scene.generations, caller=CALLER, upload_id=upload.id)
    assert (read.format, str(read.size), len(read.content)) == ("png", "8x8", upload.bytes)
    assert await scene.faults() == []
    stores = scene.deployment.stores
    move = Move(scene.deployment.sessions, stores[scene.store], stores[elsewhere])
    assert [failed async for failed in move.run()] == [{}]
    assert (move.copied, scene.files(elsewhere)) == (1, [name])
    await scene.deployment.stores[scene.store].delete(name)
    assert await scene.faults() == [(name, "missing")]
    with pytest.raises(UploadNotFound):
        await uploads.open_upload(scene.generations, caller=CALLER, upload_id=upload.id)
    await scene.expire()
    assert await scene.faults() == [], "it is due to be deleted"
    await scene.database.execute("delete from uploads")
    await scene.deployment.stores[scene.store].put(name, b"stray")
    assert await scene.faults() == [(name, "orphaned")]


async def test_a_deleted_account_leaves_no_upload_and_gets_none(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.save()
    with monkeypatch.context() as patch, suppress(Killed):
        kill(patch, uploads, "_show")
        await scene.save()
    await scene.database.execute("update accounts set is_active = false")
    with pytest.raises(InvalidApiKey):
        await scene.save()
    await scene.database.execute("insert into erasures values ($1, now())", ACCOUNT)
    assert await erase.erase(scene.generations, account_id=ACCOUNT) == 1, "what is being stored is erased later"
    assert (await scene.rows(), len(scene.files())) == ((1, 0), 1)
    await scene.database.execute("update uploads set is_stored = true")
    assert await erase.erase(scene.generations, account_id=ACCOUNT) == 0
    assert (await scene.rows(), scene.files()) == ((0, 0), [])
    assert await scene.database.fetchval("select count(*) from erasures") == 0


async def test_many_uploads_are_swept_at_once(scene: Scene) -> None:
    many = """
        insert into uploads (id, account_id, environment, format, width, height, bytes, expires_at)
        select 'upl_' || lpad(n::text, 20, '0'), $1, 'test', 'png', 1, 1, 1, now() from generate_series(1, 201) n
    """
    await scene.database.execute(many, ACCOUNT)
    await scene.sweeper.sweep()
    assert await scene.rows() == (0, 0)
