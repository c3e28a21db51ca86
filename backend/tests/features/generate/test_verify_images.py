"""`nanobanana images verify` finds what is missing, orphaned or damaged, and nothing else, while the service runs."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx2
import pytest
from app.core.image_settings import StoreName
from app.core.security import new_timed_id
from app.generations import verify
from app.generations.verify import Verification
from sqlalchemy.engine import make_url
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.generate.stores import STORES, Deployment, deployed
from tests.features.generate.test_sweeper import AS_AFTER_A_CRASH, NOW
from tests.harness import generate
from tests.test_cli import nanobanana_in_here

STRAY = f"{new_timed_id('gen', now=1_700_000_000)}.png"
DELETED = "update generations set deleted_at = now() where id = $1"


@dataclass(frozen=True)
class Scene:
    """A deployment whose server is running, and a connection to its database."""

    there: Painted
    deployment: Deployment
    store: StoreName
    database: asyncpg.Connection

    async def made(self) -> str:
        """The id of a new image, of which there is a smaller copy too."""
        answer = await generate(self.there.client, self.there.key)
        path = httpx2.URL(answer.json()["url"]).path
        assert (await self.there.client.get(f"{path}?width=64")).status_code == 200
        return str(answer.json()["id"])

    async def put(self, name: str, content: bytes = b"stray", *, hours_ago: float = 0) -> None:
        await self.deployment.stores[self.store].put(name, content)
        written_at = time.time() - hours_ago * 3600
        if self.store == "disk":
            [file] = (self.deployment.data_dir / "pictures").rglob(name)
            os.utime(file, (written_at, written_at))
        else:
            objects = self.deployment.bucket.buckets["pictures"]
            objects[name] = replace(objects[name], changed_at=written_at)

    async def drop(self, name: str) -> None:
        await self.deployment.stores[self.store].delete(name)

    async def faults(self, *, reads_all: bool = False, end: str = "~") -> list[str]:
        store, sessions = self.deployment.stores[self.store], self.deployment.sessions
        verification = Verification(sessions, store, end=end, reads_all=reads_all)
        return [f"{fault.name}: {fault.kind}" async for fault in verification.faults()]

    async def verify(self, *options: str) -> tuple[int, list[str]]:
        """The exit status and the lines of the command."""
        settings = {**self.deployment.environment, "IMAGE_STORE": self.store}
        command = ("images", "verify", *options)
        done = await asyncio.to_thread(nanobanana_in_here, self.deployment.data_dir, *command, **settings)
        return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.fixture(params=STORES)
async def scene(
    request: pytest.FixtureRequest,
    start: Start,
    new_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Scene]:
    monkeypatch.setattr(verify, "LOOK_AGAIN_SECONDS", 0)
    url = make_url(new_database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    async with deployed(new_database_url, tmp_path) as deployment:
        database = await asyncpg.connect(url)
        async with painted(start, image_store=request.param, **deployment.settings) as there:
            yield Scene(there, deployment, request.param, database)
        await database.close()


async def test_each_fault_is_found_and_what_is_as_it_should_be_is_none(scene: Scene) -> None:
    first, second, deleted, drawing, failed = [await scene.made() for _ in range(5)]
    test_key = await scene.there.account.create_key(environment="test")
    assert (await generate(scene.there.client, test_key)).status_code == 200, "which the stub draws again"
    for each, status in ((drawing, "processing"), (failed, "failed")):
        await scene.database.execute(AS_AFTER_A_CRASH, each, status, NOW)
    headers = scene.there.key.headers
    assert (await scene.there.client.delete(f"/v1/generations/{deleted}", headers=headers)).status_code == 204
    assert await scene.faults(reads_all=True) == []
    images = scene.deployment.files(scene.store)
    whole = images[f"{first}.png"]
    await scene.drop(f"{first}.png")
    await scene.put(f"{second}.png", whole[:-20])
    strays = [STRAY, f"{first}.jpeg", f"{first}.w65.png", f"{deleted}.png", f"{deleted}.w64.png"]
    for name in strays:
        await scene.put(name)
    orphaned = [f"{name}: orphaned" for name in sorted(strays)]
    assert sorted(await scene.faults()) == sorted([f"{first}.png: missing", *orphaned])
    assert f"{second}.png: damaged" in await scene.faults(reads_all=True)
    assert await scene.faults(end=first) == [f"{STRAY}: orphaned"]


async def test_the_command_prints_each_fault_and_ends_with_1_until_there_is_none(scene: Scene) -> None:
    made = await scene.made()
    assert await scene.verify("--whole") == (0, ["1 images and 2 files compared: 0 missing, 0 damaged, 0 orphaned."])
    today = datetime.now(UTC).date()
    for name, hours in ((STRAY, 2), (f"{made}.jpeg", 0)):
        await scene.put(name, hours_ago=hours)
    status, lines = await scene.verify()
    assert (status, lines[2]) == (1, "1 images and 4 files compared: 0 missing, 0 damaged, 2 orphaned.")
    assert set(lines[:2]) == {f"{STRAY}: orphaned", f"{made}.jpeg: orphaned"}
    assert (await scene.verify("--to", str(today - timedelta(days=1))))[1][0] == f"{STRAY}: orphaned"
    assert (await scene.verify("--from", str(today), "--to", str(today)))[1][0] == f"{made}.jpeg: orphaned"
    status, lines = await scene.verify("--delete-orphans")
    assert (status, lines[-1]) == (1, "Run it with --yes to delete the orphaned files that are an hour old or older.")
    assert STRAY in scene.deployment.files(scene.store)
    status, lines = await scene.verify("--delete-orphans", "--yes")
    assert (status, lines[-1]) == (1, "1 orphaned files are deleted."), "the other one is too young"
    assert set(scene.deployment.files(scene.store)) == {f"{made}.{each}" for each in ("png", "w64.png", "jpeg")}
    await scene.drop(f"{made}.jpeg")
    assert (await scene.verify())[0] == 0


@pytest.mark.parametrize("command", [("verify",), ("expire", "--yes")])
async def test_without_a_database_url_the_commands_find_the_embedded_server(
    new_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr("app.cli.database.running_url", lambda _data_dir: new_database_url)
    settings = {"IMAGE_RETENTION_DAYS": "1"}
    done = await asyncio.to_thread(nanobanana_in_here, tmp_path, "images", *command, **settings)
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_database_that_knows_few_of_the_files_has_none_deleted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_ORPHANS_MAX", 1)
    made = await scene.made()
    await scene.database.execute("delete from generations")
    await scene.put(f"{made}.png", hours_ago=2)
    status, lines = await scene.verify("--delete-orphans", "--yes")
    assert (status, lines[-1].partition(": has another")[0]) == (
        1,
        "nanobanana: More than a tenth of the files are orphaned",
    )
    assert f"{made}.png" in scene.deployment.files(scene.store)


async def test_what_is_deleted_between_two_looks_is_no_fault(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are deleted before its row says so; and a copy that was being made is deleted after that."""
    first, second = [await scene.made() for _ in range(2)]
    later: list[Callable[[], Awaitable[object]]] = [
        lambda: scene.database.execute(DELETED, first),
        lambda: scene.drop(f"{second}.png"),
    ]

    async def meanwhile(_seconds: float) -> None:
        await later.pop(0)()

    await scene.drop(f"{first}.png")
    await scene.drop(f"{first}.w64.png")
    await scene.drop(f"{second}.w64.png")
    monkeypatch.setattr(verify, "_pause", meanwhile)
    assert await scene.faults() == []
    await scene.database.execute(DELETED, second)
    assert await scene.faults() == []
    assert later == []
