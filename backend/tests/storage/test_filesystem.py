"""The guarantees of the file store: durable and private files, no leftovers, and no blocked event loop."""

import asyncio
import errno
import os
import stat
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import rmtree

import pytest
from app.core.files import LEFTOVER_SECONDS
from app.core.settings import ConfigurationError
from app.storage import StoreUnavailable
from app.storage.filesystem import FilesystemStore
from tests.harness import looks

BACKEND = Path(__file__).parents[2]
NAME = "gen_01kapn5vfe28fm63cjp43w44255s68.png"
PLACE = Path("68") / NAME


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pictures"


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[FilesystemStore]:
    store = FilesystemStore(folder)
    await store.open()
    yield store
    await store.close()


def modes(folder: Path) -> dict[Path, int]:
    return {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


def run(program: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program in a process of its own, since it changes its limits or kills itself."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=BACKEND, check=False, capture_output=True, text=True, timeout=60
    )


async def until_open(folder: Path, *, times: int) -> None:
    """Returns once this process has the image open so many times: a thread may be about to close it."""
    for _ in looks():
        if times_open(folder) == times:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{times_open(folder)} times")


def times_open(folder: Path) -> int:
    held = [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
    return held.count(os.path.realpath(folder / PLACE))


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())


async def test_folders_and_files_are_accessible_to_their_owner_alone(store: FilesystemStore, folder: Path) -> None:
    await store.put(NAME, b"content")
    found = modes(folder)
    assert found.pop(folder / PLACE) == 0o600
    assert set(found.values()) == {0o700}
    await store.check()
    assert files(folder) == [PLACE]


async def test_images_are_spread_over_folders_by_the_random_end_of_their_ids(
    store: FilesystemStore, folder: Path
) -> None:
    ends = ["00", "01", "7z", "zz"]
    await asyncio.gather(*(store.put(f"gen_01kapn5vfe28fm63cjp43w44255s{end}.png", b"") for end in ends))
    assert [str(path.parent) for path in files(folder)] == ends


@pytest.mark.parametrize("removed", [PLACE.parent, "incoming"])
async def test_a_folder_that_somebody_removes_is_made_again(
    store: FilesystemStore, folder: Path, removed: Path
) -> None:
    await store.put(NAME, b"before")
    rmtree(folder / removed)
    await store.put(NAME, b"after")
    assert files(folder) == [PLACE]
    assert (folder / PLACE).read_bytes() == b"after"


async def test_put_returns_after_file_and_folders_are_synced(
    store: FilesystemStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(f"fsync {os.path.relpath(Path(f'/proc/self/fd/{descriptor}').readlink(), folder)}")

    def noted_rename(source: str, target: str, **folders: int) -> None:
        rename(source, target, **folders)
        steps.append("rename")

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    await store.put(NAME, b"content")
    [file, root, renamed, shard] = steps
    assert (file.rpartition("/")[0], root, renamed, shard) == ("fsync incoming", "fsync .", "rename", "fsync 68")
    await store.put(NAME, b"content")
    assert [step.partition("/")[0] for step in steps[4:]] == ["fsync incoming", "rename", "fsync 68"]
    await store.delete(NAME)
    assert steps[7:] == ["fsync 68"]


async def test_a_put_killed_half_way_leaves_no_image_and_open_removes_its_leftovers(folder: Path) -> None:
    program = f"""
import asyncio, os, pathlib
from app.storage.filesystem import FilesystemStore
async def main():
    store = FilesystemStore(pathlib.Path({str(folder)!r}))
    await store.open()
    os.rename = lambda *a, **k: os._exit(9)
    await store.put({NAME!r}, bytes(100_000))
asyncio.run(main())
"""
    assert run(program).returncode == 9
    [leftover] = files(folder)
    assert leftover.parent == Path("incoming")
    young = folder / "incoming" / f"{leftover.name}-of-another-process"
    young.touch()
    old = time.time() - LEFTOVER_SECONDS - 60
    os.utime(folder / leftover, (old, old))
    store = FilesystemStore(folder)
    await store.open()
    assert await store.get(NAME) is None
    assert files(folder) == [young.relative_to(folder)]
    await store.close()


def test_a_disk_that_fills_up_during_a_put_is_unavailable_and_keeps_no_leftovers(folder: Path) -> None:
    program = f"""
import asyncio, pathlib, resource
from app.storage import StoreUnavailable
from app.storage.filesystem import FilesystemStore
async def main():
    store = FilesystemStore(pathlib.Path({str(folder)!r}))
    await store.open()
    await store.put({NAME!r}, b"before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        await store.put({NAME!r}, bytes(2_000_000))
    except StoreUnavailable as error:
        print(error)
    await store.close()
asyncio.run(main())
"""
    finished = run(program)
    assert StoreUnavailable.detail in finished.stdout
    assert "EFBIG" in finished.stdout + finished.stderr
    assert files(folder) == [PLACE]
    assert (folder / PLACE).read_bytes() == b"before"


@pytest.mark.parametrize("broken", ["write", "fsync", "rename", "open"])
async def test_a_disk_that_fails_at_any_step_is_unavailable_and_keeps_no_leftovers(
    store: FilesystemStore, folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    await store.put(NAME.replace("01", "02"), b"")  # so that the folder exists

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", NAME)

    with monkeypatch.context() as patched:
        patched.setattr(os, broken, full)
        with pytest.raises(StoreUnavailable) as caught:
            await store.put(NAME, b"content")
    assert NAME not in str(caught.value)
    assert NAME not in {path.name for path in files(folder)}
    assert list((folder / "incoming").iterdir()) == []
    await store.put(NAME, b"content")


async def test_no_symbolic_link_is_followed(store: FilesystemStore, folder: Path, tmp_path: Path) -> None:
    secret, elsewhere = tmp_path / "secret", tmp_path / "elsewhere"
    secret.write_bytes(b"secret")
    elsewhere.mkdir()
    (folder / "68").mkdir()
    (folder / PLACE).symlink_to(secret)
    with pytest.raises(StoreUnavailable):
        await store.get(NAME)
    await store.put(NAME, b"image")
    await store.delete(NAME)
    assert secret.read_bytes() == b"secret"
    (folder / "69").symlink_to(elsewhere)
    with pytest.raises(StoreUnavailable):
        await store.put(NAME.replace("68", "69"), b"image")
    (elsewhere / NAME.replace("68", "69")).write_bytes(b"image")
    with pytest.raises(StoreUnavailable):
        await store.get(NAME.replace("68", "69"))
    with pytest.raises(StoreUnavailable):
        await store.delete(NAME.replace("68", "69"))
    assert len(list(elsewhere.iterdir())) == 1


async def test_a_pipe_or_folder_in_place_of_a_file_is_unavailable_without_blocking(
    store: FilesystemStore, folder: Path
) -> None:
    (folder / "68").mkdir()
    os.mkfifo(folder / PLACE)
    with pytest.raises(StoreUnavailable):
        await store.get(NAME)
    (folder / PLACE).unlink()
    (folder / PLACE).mkdir()
    with pytest.raises(StoreUnavailable):
        await store.get(NAME)


async def test_a_file_truncated_while_it_is_read_is_unavailable(store: FilesystemStore, folder: Path) -> None:
    await store.put(NAME, bytes(1_000_000))
    stored = await store.get(NAME)
    assert stored is not None
    await anext(stored.chunks)
    os.truncate(folder / PLACE, 300_000)
    with pytest.raises(StoreUnavailable):
        _ = [chunk async for chunk in stored.chunks]


async def test_a_file_is_open_until_it_is_read_to_its_end_or_its_reader_is_dropped(
    store: FilesystemStore, folder: Path
) -> None:
    await store.put(NAME, bytes(1_000_000))
    never_read, begun, read = [await store.get(NAME) for _ in range(3)]
    assert begun is not None
    assert read is not None
    await anext(begun.chunks)
    await until_open(folder, times=3)
    _ = [chunk async for chunk in read.chunks]
    await until_open(folder, times=2)
    del never_read, begun
    await until_open(folder, times=0)


async def test_a_large_image_is_never_in_memory_as_a_whole(store: FilesystemStore) -> None:
    await store.put(NAME, bytes(20_000_000))
    tracemalloc.start()
    try:
        stored = await store.get(NAME)
        assert stored is not None
        assert sum([len(chunk) async for chunk in stored.chunks]) == 20_000_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


async def test_an_unusable_folder_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file")
    store = FilesystemStore(tmp_path / "pictures")
    with pytest.raises(ConfigurationError, match="in DATA_DIR cannot be used: Not a directory"):
        await store.open()
    await store.close()


async def test_check_finds_a_read_only_disk(store: FilesystemStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", read_only)
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        await store.check()
