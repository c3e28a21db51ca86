"""What clients send is kept within bounds: of memory, of files, and of what one account may have of them."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from app.core.blobs import BlobSpace, BlobWriter
from app.core.errors import Unavailable
from app.core.pool import BoundedPool
from tests.harness import looks

KIB = 1024
CONTENT = bytes(range(256)) * 4 * 300  # 300 KiB


@pytest.fixture
def space(tmp_path: Path) -> Iterator[BlobSpace]:
    with closing(BoundedPool(threads=1, queue_max=100, name="read-bodies")) as threads:
        yield BlobSpace(memory_bytes_max=400 * KIB, file_bytes_max=700 * KIB, folder=tmp_path, threads=threads)


async def test_a_blob_is_in_memory_while_there_is_some_and_in_a_file_beyond_and_frees_either(space: BlobSpace) -> None:
    first, second = await space.keep(CONTENT), await space.keep(CONTENT)
    assert (space.memory.taken, space.files.taken) == (300 * KIB, 300 * KIB)
    for blob in (first, second):
        assert await blob.read() == CONTENT == b"".join([piece async for piece in blob.chunks(100_000)])
        assert blob.part(5, 9) == CONTENT[5:9]
        assert (blob.size, first.sha256) == (len(CONTENT), second.sha256)
    del blob, first
    assert (space.memory.taken, space.files.taken) == (0, 300 * KIB)
    del second
    for _ in looks():  # the thread that has read it lets go of it a moment later
        if space.files.taken == 0:
            break
    assert space.files.taken == 0


async def test_an_account_has_half_of_the_files_and_another_one_the_other_half(space: BlobSpace) -> None:
    def write(account: str) -> BlobWriter:
        writer = space.writer(account)
        for start in range(0, len(CONTENT), 100 * KIB):
            writer.write(CONTENT[start : start + 100 * KIB])
        return writer

    kept = [write("one")]
    for _ in range(2):
        with pytest.raises(Unavailable):
            write("one")
    kept.append(write("other"))
    assert space.files.taken == 600 * KIB
    kept.clear()
    assert await asyncio.to_thread(write, "one")


async def test_nothing_is_written_to_a_disk_that_is_nearly_full(
    space: BlobSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.blobs._LEFT_FREE_BYTES", 2**60)
    await space.keep(CONTENT)
    with pytest.raises(Unavailable):
        await space.keep(bytes(500 * KIB))
    assert space.files.taken == 0
