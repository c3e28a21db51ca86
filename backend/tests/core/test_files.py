"""The program's own files are complete or missing, and its secret cannot be guessed."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from app.core import files
from app.core.settings import ConfigurationError, Settings
from tests.core.faults import FORKS, NEVER, dies_at, fault, full, reason
from tests.harness import PATIENCE_SECONDS

Write = Callable[[Path, bytes], object]
BOTH_WAYS = pytest.mark.parametrize("write", [files.write, files.create_once])
FULL = os.strerror(errno.ENOSPC)
PAIRS = 20


def no_links(*_: object, **__: object) -> None:
    """The `os.link` of a file system that has no hard links."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def start(data_dir: Path) -> bytes:
    """The secret that a start on the folder uses."""
    return Settings(data_dir=data_dir).with_secret().signing_secret


def start_at_once(data_dir: Path, barrier: Barrier, secrets: "SimpleQueue[bytes]", *, links: bool) -> None:
    if not links:
        os.link = no_links
    barrier.wait(PATIENCE_SECONDS)
    secrets.put(start(data_dir))


def assert_kept(secret: bytes, data_dir: Path) -> None:
    """Every start finds this secret, and the folder holds no other file."""
    assert len(secret) >= 32
    assert [path.name for path in data_dir.iterdir()] == ["secret_key"]
    assert secret == (data_dir / "secret_key").read_bytes() == start(data_dir)


def test_a_disk_that_is_full_at_any_call_of_the_first_start_ends_it_with_a_sentence_or_a_good_secret(
    tmp_path: Path,
) -> None:
    for at in count():
        data_dir = tmp_path / str(at) / "data"
        with fault(at, full) as disk:
            refused = reason(ConfigurationError, partial(start, data_dir))
        file = data_dir / "secret_key"
        assert refused in {
            "",
            f"DATA_DIR ({data_dir}) cannot be written: {FULL}.",
            f"The secret in {file} cannot be read or made ({FULL}): mend that, or set SECRET_KEY.",
        }
        assert_kept(start(data_dir), data_dir)
        if not disk.happened:
            break
    assert {"mkdir", "write", "link"} <= set(disk.calls)


@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power cut"])
def test_after_a_first_start_that_dies_at_any_call_the_next_one_has_a_good_secret(
    tmp_path: Path, *, power_cut: bool
) -> None:
    for at in count():
        data_dir = tmp_path / str(at) / "data"
        died = dies_at(at, start, data_dir, power_cut=power_cut)
        secret = start(data_dir)
        for leftover in data_dir.glob("secret_key.new-*"):
            leftover.unlink()
        assert_kept(secret, data_dir)
        if not died:
            break
    assert at > 1


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_processes_that_start_in_parallel_have_one_secret(tmp_path: Path, *, links: bool) -> None:
    for pair in range(PAIRS):
        data_dir, barrier, secrets = tmp_path / str(pair), FORKS.Barrier(2), FORKS.SimpleQueue()
        at_once = partial(start_at_once, data_dir, barrier, secrets, links=links)
        processes = [FORKS.Process(target=at_once) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE_SECONDS)
        assert [process.exitcode for process in processes] == [0, 0]
        first, second = secrets.get(), secrets.get()
        assert first == second
        assert_kept(first, data_dir)


@BOTH_WAYS
def test_a_file_is_synced_before_it_gets_its_name_and_its_name_before_the_call_returns(
    tmp_path: Path, write: Write
) -> None:
    with fault(NEVER, full) as disk:
        write(tmp_path / "file", b"content")
    named = "link" if write is files.create_once else "rename"
    steps = [call for call in disk.calls if call != "open"]
    assert steps == ["write", "fsync", named, "fsync"]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@BOTH_WAYS
def test_a_disk_that_fails_at_any_call_leaves_the_old_file_or_the_new_one_and_nothing_else(
    tmp_path: Path, write: Write
) -> None:
    old = b"" if write is files.create_once else b"old"
    for at in count():
        file = tmp_path / str(at) / "file"
        file.parent.mkdir()
        if old:
            files.write(file, old)
        with fault(at, full) as disk:
            refused = reason(OSError, partial(write, file, b"a new content"))
        assert refused in {"", f"[Errno {errno.ENOSPC}] {FULL}: '{file}'"}
        assert [path.name for path in file.parent.iterdir()] in [["file"], []]
        assert (file.read_bytes() if file.exists() else b"") in [old, b"a new content"]
        if not disk.happened:
            break
    assert file.read_bytes() == b"a new content"


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_an_existing_file_is_never_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for content in (b"first", b"second", b""):
        assert files.create_once(tmp_path / "file", content) == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_hard_links_a_lock_covers_the_check_and_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def locked_rename(source: str, target: str, **folders: int) -> None:
        with files.opened_folder(tmp_path) as folder, pytest.raises(BlockingIOError):
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        rename(source, target, **folders)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "rename", locked_rename)
    assert files.create_once(tmp_path / "file", b"content") == b"content"
    with files.opened_folder(tmp_path) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)


@BOTH_WAYS
def test_a_file_is_complete_where_the_system_writes_a_few_bytes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    some = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: some(descriptor, content[:3]))
    write(tmp_path / "file", b"a whole content")
    assert (tmp_path / "file").read_bytes() == b"a whole content"


def test_only_a_regular_file_is_read_and_any_other_is_refused_without_blocking(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, why in (("folder", "regular file"), ("pipe", "regular file"), ("link", "symbolic link to nothing")):
        with pytest.raises(OSError, match=why):
            files.read(tmp_path / name)
        with pytest.raises(OSError, match=why):
            files.create_once(tmp_path / name, b"content")
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "nothing")


def test_new_folders_are_synced_with_their_names_and_existing_ones_are_not_changed(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with fault(NEVER, full) as disk:
        files.make_folder(folder, 0o711)
    assert disk.calls.count("fsync") == 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    files.make_folder(folder, 0o700)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    (folder / "file").touch()
    (folder / "link").symlink_to(folder / "nothing")
    for taken in ("file", "link", "file/below"):
        with pytest.raises(NotADirectoryError):
            files.make_folder(folder / taken)


def test_temporary_files_of_killed_writers_are_removed_once_no_process_can_be_writing_them(tmp_path: Path) -> None:
    old = time.time() - files.LEFTOVER_SECONDS - 60
    for name, age in (("a.new-1", old), ("b.new-2", time.time()), ("postgres.new-3/file", old), ("c", old)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (age, age))
        os.utime(file.parent, (old, old))
    with files.opened_folder(tmp_path) as folder:
        files.remove_leftovers(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"b.new-2", "postgres.new-3", "c"}


def test_a_file_system_that_cannot_sync_folders_is_used_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    assert_kept(start(tmp_path / "data"), tmp_path / "data")
