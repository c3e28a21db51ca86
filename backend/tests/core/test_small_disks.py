"""A first start on a disk that is really full ends with a sentence, and the next one works once there is space."""

import asyncio
import secrets
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from app.core.embedded import EmbeddedPostgresError
from app.core.settings import ConfigurationError
from app.storage import StoreUnavailable, health
from app.storage.filesystem import FilesystemStore
from tests.core.embedded_servers import works
from tests.core.faults import reason
from tests.core.small_disks import MOUNTED, enlarge, filled, small_disk
from tests.core.test_files import FULL, assert_kept, start
from tests.harness import PATIENCE_SECONDS, looks

BACKEND = Path(__file__).parents[2]


def run_where_it_may_mount(function: str, disk: Path) -> None:
    """Runs a function of this module in a process of its own, with the path of an empty folder."""
    program = f"import pathlib, {__name__} as this; this.{function}(pathlib.Path({str(disk)!r}))"
    done = subprocess.run(
        [*MOUNTED, 'exec "$@"', "sh", sys.executable, "-c", program],
        cwd=BACKEND,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def start_secrets(disk: Path) -> None:
    started = []
    for pages, inodes in product((0, 1), (0, 1, 2, 3)):
        with small_disk(disk, "size=64k,nr_inodes=10"):
            data_dir = disk / "data"
            with filled(disk, pages=pages, inodes=inodes):
                refused = reason(ConfigurationError, partial(start, data_dir))
            assert not refused or FULL in refused
            if not refused:
                started.append((pages, inodes))
            assert_kept(start(data_dir), data_dir)
    assert {pages for pages, _ in started} == {1}, "it starts with room for the content, and never without"


def start_servers(disk: Path) -> None:
    for size in ("64k", "1m", "20m", "35m"):
        with small_disk(disk, f"size={size}"):
            refused = reason(EmbeddedPostgresError, partial(works, disk / "data"))
            assert refused
            assert "\n" not in refused
            enlarge(disk, "500m")
            assert works(disk / "data")
            assert (disk / "data" / "postgres" / "PG_VERSION").exists()


def write_images(disk: Path) -> None:
    """A probe is as large as the write that failed: small files still fit on this disk."""
    asyncio.run(_write_images(disk))


async def _write_images(disk: Path) -> None:
    health.PROBE_SECONDS = 0.01
    image, name = secrets.token_bytes(200_000), "gen_01kapn5vfe28fm63cjp43w44255s68.png"
    with small_disk(disk, "size=256k"):
        folder = FilesystemStore(disk / "images")
        await folder.open()
        store = health.MonitoredStore(folder)
        (disk / "other").write_bytes(bytes(100_000))
        await folder.check(size=1000)
        with pytest.raises(StoreUnavailable):
            await store.put(name, image)
        with pytest.raises(StoreUnavailable, match="is full"):
            await folder.check(size=len(image))
        for _ in range(20):
            assert store.is_failing
            await asyncio.sleep(0.01)
        enlarge(disk, "2m")
        for _ in looks():
            if not store.is_failing:
                break
            await asyncio.sleep(0.01)
        await store.put(name, image)
        assert await folder.free_bytes() < 2 * 1024 * 1024
        await store.close()
        await folder.close()


def test_a_full_disk_fails_until_an_image_of_that_size_fits_on_it(tmp_path: Path) -> None:
    run_where_it_may_mount("write_images", tmp_path)


def test_a_secret_is_complete_or_missing_on_a_disk_that_is_too_small_for_it(tmp_path: Path) -> None:
    run_where_it_may_mount("start_secrets", tmp_path)


def test_an_embedded_server_starts_once_the_disk_has_space_for_its_data(tmp_path: Path) -> None:
    run_where_it_may_mount("start_servers", tmp_path)
