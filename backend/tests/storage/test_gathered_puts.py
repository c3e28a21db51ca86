"""Images that are written together: each has an outcome of its own, and none waits longer than it must."""

import asyncio
import errno
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from app.storage.disk import Disk
from app.storage.filesystem import FilesystemStore
from app.storage.gathered_puts import GatheredPuts, NewImage, Outcome
from tests.core.faults import NEVER, dies_at, fault, full

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
IMAGES = [
    NewImage(f"gen_01kapn5vfe28fm63cjp43w44255{end}.png", content * 1000)
    for end, content in (("s68", b"one"), ("t68", b"two"), ("s69", b"three"))
]
LARGE = bytes(1024 * 1024)


class Writing:
    """Batches that are under way until they are let go."""

    def __init__(self) -> None:
        self.batches: list[tuple[Sequence[str], asyncio.Future[Sequence[Outcome]]]] = []

    async def write(self, images: Sequence[NewImage]) -> Sequence[Outcome]:
        ended: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self.batches.append(([each.name for each in images], ended))
        return await ended

    @property
    def names(self) -> Sequence[Sequence[str]]:
        return [names for names, _ in self.batches]

    def end(self, batch: int, *outcomes: Outcome) -> None:
        names, ended = self.batches[batch]
        ended.set_result(outcomes or [None] * len(names))


async def pass_on() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def begin(puts: GatheredPuts, name: str, content: bytes = b"") -> "asyncio.Task[None]":
    return asyncio.create_task(puts.put(NewImage(name, content)))


async def test_what_comes_while_an_image_is_written_is_written_together_and_each_fails_alone() -> None:
    writing = Writing()
    puts = GatheredPuts(writing.write, at_a_time=2)
    first, *others = [begin(puts, name) for name in "abcde"]
    await pass_on()
    assert writing.names == [["a"]]
    others[1].cancel()
    await pass_on()
    writing.end(0)
    await pass_on()
    assert first.done()
    assert writing.names == [["a"], ["b", "d", "e"]], "an image whose caller has left is not written"
    others[2].cancel()
    writing.end(1, None, None, FULL)
    ends = await asyncio.gather(*others, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), asyncio.CancelledError, asyncio.CancelledError, OSError]
    assert str(ends[3]) == str(FULL)


async def test_a_large_image_waits_for_none_and_a_full_batch_is_written_beside_the_one_before() -> None:
    writing = Writing()
    puts = GatheredPuts(writing.write, at_a_time=3)
    begun = [begin(puts, name, content) for name, content in (("a", LARGE), ("b", LARGE), ("c", b"small"))]
    begun += [begin(puts, f"{number}") for number in range(31)]
    await pass_on()
    assert [len(names) for names in writing.names] == [1, 1, 32]
    begun += [begin(puts, name, LARGE) for name in "xyz"]
    await pass_on()
    assert len(writing.batches) == 3, "no more at a time"
    writing.end(1)
    await pass_on()
    assert writing.names[3:] == [["x"]]
    for batch in (0, 2, 3):
        writing.end(batch)
    await pass_on()
    assert writing.names[4:] == [["y"], ["z"]]
    writing.end(4)
    writing.end(5)
    await asyncio.gather(*begun)


async def test_a_defect_is_told_to_every_image_of_its_batch_and_the_next_is_written() -> None:
    async def write(images: Sequence[NewImage]) -> Sequence[Outcome]:
        if images[0].name == "b":
            raise ZeroDivisionError
        await asyncio.sleep(0)
        return [None] * len(images)

    puts = GatheredPuts(write, at_a_time=1)
    ends = await asyncio.gather(*(begin(puts, name) for name in "abc"), return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), ZeroDivisionError, ZeroDivisionError]
    await begin(puts, "d")


def put(folder: Path) -> Sequence[Outcome]:
    disk = Disk(folder)
    disk.open()
    try:
        return disk.put(IMAGES)
    finally:
        disk.close()


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[0-9]*/*")}


def test_a_disk_that_fails_at_any_call_loses_no_other_image_and_keeps_no_half_of_one(tmp_path: Path) -> None:
    refused = set[int]()
    for at in count():
        disk = Disk(tmp_path / str(at))
        disk.open()
        with fault(at, full) as faulty:
            outcomes = disk.put(IMAGES)
        disk.close()
        there = kept(disk.folder)
        for image, outcome in zip(IMAGES, outcomes, strict=True):
            if outcome is None:
                assert there.pop(image.name) == image.content
            else:
                assert there.pop(image.name, image.content) == image.content
        assert there == {}
        assert list((disk.folder / "incoming").iterdir()) == []
        refused.add(len(IMAGES) - outcomes.count(None))
        if not faulty.happened:
            break
    assert refused == {0, 1, 2}, "an image, or those of one folder"
    assert faulty.calls.count("fsync") == len(IMAGES) + 2 * 2, "each file, two new folders, and the names in them"


@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power cut"])
def test_a_death_at_any_call_leaves_each_image_whole_or_not_at_all(tmp_path: Path, *, power_cut: bool) -> None:
    whole = {each.name: each.content for each in IMAGES}
    for at in count():
        folder = tmp_path / str(at)
        died = dies_at(at, put, folder, power_cut=power_cut)
        assert kept(folder).items() <= whole.items()
        if not died:
            break
    assert kept(folder) == whole


def test_all_images_are_filled_before_one_is_waited_for_and_renamed_before_their_folders_are(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.open()
    disk.put(IMAGES)  # makes the folders
    with fault(NEVER, full) as watched:
        assert disk.put(IMAGES) == [None] * 3
    disk.close()
    steps = [call for call in watched.calls if call != "open"]
    assert steps == ["write"] * 3 + ["fsync"] * 3 + ["rename"] * 3 + ["fsync"] * 2


async def test_a_burst_of_images_is_on_the_disk_when_each_put_returns(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    await store.open()
    names = [f"gen_01kapn5vfe28fm63cjp43w44{number:04}68.png" for number in range(300)]

    async def put_one(name: str) -> bytes:
        await store.put(name, name.encode())
        return (tmp_path / "68" / name).read_bytes()

    assert await asyncio.gather(*map(put_one, names)) == [name.encode() for name in names]
    await store.close()
