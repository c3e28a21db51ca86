"""Images move from one store to the other while they are made, looked at and deleted: none is lost or comes back."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path

import httpx2
import pytest
from app.core.image_settings import StoreName
from app.generations.move import Move
from app.storage import Store
from app.storage.filesystem import FilesystemStore
from app.storage.pair import StorePair
from app.storage.s3 import S3Store
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted
from tests.features.generate.stores import STORES, Deployment, deployed, other
from tests.harness import looks
from tests.test_cli import environment, nanobanana_in_here

Action = Callable[[], Awaitable[object]]


@pytest.fixture
async def deployment(new_database_url: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    async with deployed(new_database_url, tmp_path) as deployment:
        yield deployment


async def made(there: Painted, count: int = 1) -> list[str]:
    """The paths of new images."""
    body = {"prompt": "A cute banana", "n": count}
    answer = await there.client.post("/v1/images/generations", json=body, headers=there.key.headers)
    assert answer.status_code == 200, answer.text
    return [httpx2.URL(each["url"]).path for each in answer.json()["data"]]


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


async def delete(there: Painted, path: str) -> None:
    generation_id = name_of(path).partition(".")[0]
    answer = await there.client.delete(f"/v1/generations/{generation_id}", headers=there.key.headers)
    assert answer.status_code == 204, answer.text


async def run_move(deployment: Deployment, source: StoreName, target: StoreName) -> tuple[Move, dict[str, str]]:
    """One run of `images copy`, and the images that could not be copied."""
    move = Move(deployment.sessions, deployment.stores[source], deployment.stores[target])
    return move, {name: trouble async for failed in move.run() for name, trouble in failed.items()}


async def command(deployment: Deployment, *arguments: str, **settings: str) -> tuple[int, str]:
    everything = {**deployment.environment, **settings}
    done = await asyncio.to_thread(nanobanana_in_here, deployment.data_dir, "images", *arguments, **everything)
    return done.returncode, done.stdout + done.stderr


async def test_no_image_is_missing_at_any_step_of_a_move(start: Start, deployment: Deployment) -> None:
    """Servers are restarted one by one: at each step some have the settings of the step before."""
    steps: list[dict[str, object]] = [
        {"image_store": "disk"},
        {"image_store": "disk", "second_image_store": "s3"},
        {"image_store": "s3", "second_image_store": "disk", "s3_redirect_seconds": 60},
        {"image_store": "s3", "s3_redirect_seconds": 60},
    ]
    both = {"IMAGE_STORE": "s3", "SECOND_IMAGE_STORE": "disk"}
    etags: dict[str, str] = {}

    async def look(client: httpx2.AsyncClient, path: str) -> None:
        whole = await client.get(path, follow_redirects=True)
        head, part = await client.head(path), await client.get(path, headers={"Range": "bytes=10-19"})
        assert (whole.status_code, head.status_code) == (200, 200)
        assert etags.setdefault(path, head.headers["etag"]) == head.headers["etag"]
        if part.status_code == 307:
            assert name_of(path) in deployment.files("s3"), "only what is in the bucket is fetched there"
        else:
            assert (part.status_code, part.content) == (206, whole.content[10:20])
        small = await client.get(path.replace(".png", ".webp"), params={"width": "64"}, follow_redirects=True)
        assert small.status_code == 200

    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(painted(start, **deployment.settings, **steps[0]))
        paths = await made(old, 3)
        for step in steps[1:]:
            if step == steps[-1]:
                copying = asyncio.create_task(command(deployment, "copy", "--to", "s3", **both))
                await asyncio.gather(*(look(old.client, path) for path in paths))
                status, said = await copying
                assert status == 0, said
            new = await stack.enter_async_context(painted(start, **deployment.settings, **step))
            paths += [*await made(old), *await made(new)]
            await asyncio.gather(*(look(each.client, path) for path in paths for each in (old, new)))
            old = new
    assert (await command(deployment, "verify", "--whole", IMAGE_STORE="s3"))[0] == 0
    assert {name_of(path) for path in paths} <= deployment.files("s3").keys()


async def keep_only_in(deployment: Deployment, name: str, source: StoreName) -> None:
    """As an image is that was made before the move began."""
    [content] = [files[name] for files in map(deployment.files, STORES) if name in files]
    for each, store in deployment.stores.items():
        await (store.put(name, content) if each == source else store.delete(name))


def interrupt(patch: pytest.MonkeyPatch, method: str, name: str, *, call: int, action: Action) -> asyncio.Event:
    """Has the action run before this call, by its number from 0, of the method of all stores for this image. Calls that
    the action makes itself do not count. The event says whether it has begun.
    """
    calls, has_run = count(), asyncio.Event()

    def patched(original: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def interrupted(store: Store, called: str, *others: object, **named: object) -> object:
            if called == name and not has_run.is_set() and next(calls) == call:
                has_run.set()
                await action()
            return await original(store, called, *others, **named)

        return interrupted

    for cls in (FilesystemStore, S3Store):
        patch.setattr(cls, method, patched(getattr(cls, method)))
    return has_run


@pytest.mark.parametrize("first", STORES)
async def test_an_image_that_is_deleted_while_it_is_copied_is_gone_from_both_stores(
    start: Start, deployment: Deployment, first: StoreName
) -> None:
    """A whole copy runs before each step of a deletion. Before each step of a copy all bytes are deleted, as a server
    does it before the row says so: the ledger cannot tell the copy.
    """
    pair = StorePair(deployment.stores[first], deployment.stores[other(first)])
    async with painted(start, image_store=first, second_image_store=other(first), **deployment.settings) as there:
        steps = (("delete", 3), ("put", 1), ("get", 4))
        for interrupted, call in [(method, call) for method, calls in steps for call in range(calls)]:
            [path] = await made(there)
            await keep_only_in(deployment, name_of(path), "disk")
            copy: Action = partial(run_move, deployment, "disk", "s3")
            delete_bytes: Action = partial(pair.delete, name_of(path))
            delete_all: Action = partial(delete, there, path)
            outer, inner = (delete_all, copy) if interrupted == "delete" else (copy, delete_bytes)
            with pytest.MonkeyPatch.context() as patch:
                has_run = interrupt(patch, interrupted, name_of(path), call=call, action=inner)
                await outer()
            assert has_run.is_set(), f"{interrupted} {call}"
            left = [store for store in STORES if name_of(path) in deployment.files(store)]
            assert left == [], f"{interrupted} {call}"
            if interrupted != "delete":
                await delete(there, path)


async def test_a_copy_that_is_killed_goes_on_where_it_stopped_and_leaves_nothing_halfway(
    start: Start, deployment: Deployment
) -> None:
    async with painted(start, **deployment.settings) as there:
        for _ in range(2):
            await made(there, 10)
        [deleted] = await made(there)
        await delete(there, deleted)
        deployment.bucket.fail("slow", times=1000, method="PUT")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.cli", "images", "copy", "--to", "s3"),
            env=environment(deployment.data_dir, **deployment.environment),
            stderr=asyncio.subprocess.DEVNULL,
        )
        for _ in looks():
            if deployment.files("s3"):
                break
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        deployment.bucket.recover()
        images, halfway = deployment.files("disk"), deployment.files("s3")
        assert halfway.items() <= images.items()
        await deployment.stores["s3"].put(name_of(deleted), b"what a crash before the check leaves")
        assert (await command(deployment, "copy", "--to", "s3"))[0] == 0
        assert deployment.files("s3") == images
        puts = Counter(name_of(seen.path) for seen in deployment.bucket.seen if seen.method == "PUT")
        assert set(puts.values()) == {1}, "none is copied twice"


async def test_images_that_cannot_be_copied_are_named(start: Start, deployment: Deployment) -> None:
    async with painted(start, **deployment.settings) as there:
        missing, damaged, refused, good = map(name_of, await made(there, 4))
        [file] = (deployment.data_dir / "pictures").rglob(missing)
        file.unlink()
        [file] = (deployment.data_dir / "pictures").rglob(damaged)
        file.write_bytes(file.read_bytes()[:-20])
        move, failed = await run_move(deployment, "disk", "s3")
        assert (move.images, move.copied, failed) == (4, 2, {missing: "missing", damaged: "damaged"})
        assert deployment.files("s3").keys() == {refused, good}
        await deployment.stores["s3"].delete(refused)
        deployment.bucket.fail("internal_error", times=1000, method="PUT")
        status, said = await command(deployment, "copy", "--to", "s3")
        assert status == 1
        assert {f"{missing}: missing", f"{damaged}: damaged", f"{refused}: not written"} <= set(said.splitlines())
