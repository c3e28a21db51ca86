"""The files of the embedded PostgreSQL: after a full disk or a crash at any moment, the next start works."""

import errno
import os
import stat
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from app.core.embedded import EmbeddedPostgresError, embedded_postgres, running_url
from tests.core.embedded_servers import ask, works
from tests.core.faults import NEVER, dies_at, fault, full, reason
from tests.core.pretended_postgres import DATABASE, ROLE, make_wheel, pretended_postgres, start_and_stop

FULL = os.strerror(errno.ENOSPC)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    make_wheel(tmp_path / "wheel")
    return tmp_path / "wheel"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the server has run before, with a row in its database."""
    folder = tmp_path_factory.mktemp("embedded") / "data"
    with embedded_postgres(folder) as url:
        ask(url, "CREATE TABLE kept AS SELECT 'a row' AS content")
    return folder


def password_of(url: str) -> str:
    return urlsplit(url).password or ""


def assert_works(wheel: Path, data_dir: Path) -> None:
    """The server starts on a complete cluster, and the URL has its password."""
    with pretended_postgres(wheel, data_dir) as url:
        assert password_of(url) == (data_dir / "postgres" / ROLE).read_text()
        assert password_of(url) == (data_dir / "postgres.password").read_text()
        assert (data_dir / "postgres" / DATABASE).exists()


def test_a_disk_that_is_full_at_any_call_of_the_first_start_ends_it_with_a_sentence_and_the_next_start_works(
    tmp_path: Path, wheel: Path
) -> None:
    for at in count():
        data_dir = tmp_path / str(at) / "data"
        with fault(at, full) as disk:
            refused = reason(EmbeddedPostgresError, partial(start_and_stop, wheel, data_dir))
        assert not refused or FULL in refused
        assert "\n" not in refused
        assert_works(wheel, data_dir)
        assert [path.name for path in data_dir.iterdir() if ".new-" in path.name] == []
        if not disk.happened:
            break
    assert at > 20


@pytest.mark.parametrize("power_cut", [False, True], ids=["kill", "power cut"])
def test_after_a_first_start_that_dies_at_any_call_the_next_one_works(
    tmp_path: Path, wheel: Path, *, power_cut: bool
) -> None:
    for at in count():
        data_dir = tmp_path / str(at) / "data"
        died = dies_at(at, partial(start_and_stop, wheel), data_dir, power_cut=power_cut)
        assert_works(wheel, data_dir)
        if not died:
            break
    assert at > 20


@pytest.mark.parametrize("fails", ["full disk", "kill", "power cut"])
def test_a_replaced_password_is_valid_whatever_interrupts_the_replacement(
    tmp_path: Path, wheel: Path, fails: str
) -> None:
    for at in count():
        data_dir = tmp_path / str(at) / "data"
        start_and_stop(wheel, data_dir)
        (data_dir / "postgres.password").write_bytes(b"")
        if fails == "full disk":
            with fault(at, full) as disk:
                reason(EmbeddedPostgresError, partial(start_and_stop, wheel, data_dir))
            happened = disk.happened
        else:
            happened = dies_at(at, partial(start_and_stop, wheel), data_dir, power_cut=fails == "power cut")
        assert_works(wheel, data_dir)
        if not happened:
            break
    assert at > 20


def test_the_state_file_is_synced_before_the_server_runs(tmp_path: Path, wheel: Path) -> None:
    with fault(NEVER, full) as disk, pretended_postgres(wheel, tmp_path / "data"):
        assert disk.calls[-4:] == ["write", "fsync", "rename", "fsync"]
        pid, _, _ = (tmp_path / "data" / "postgres.state").read_text().split("\n")
        words = (tmp_path / "data" / "postgres" / "postmaster.pid").read_text().split()
        assert words == [pid, "ready"]


@pytest.mark.parametrize("content", [b"", b"123", b"12\n34\n", b"\xff\xfe", bytes(60)])
def test_a_state_file_that_cannot_be_read_does_not_prevent_a_start(tmp_path: Path, wheel: Path, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "postgres.state").write_bytes(content)
    assert_works(wheel, tmp_path / "data")


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "zeros"])
def test_a_damaged_password_is_replaced_and_the_data_stays(data: Path, damage: str) -> None:
    file = data / "postgres.password"
    old = file.read_text()
    content = {"missing": b"", "empty": b"", "torn": old[:20].encode(), "zeros": bytes(len(old))}[damage]
    file.unlink()
    if damage != "missing":
        file.write_bytes(content)
    with embedded_postgres(data) as url:
        assert ask(url, "SELECT content FROM kept") == "a row"
        with pytest.raises(asyncpg.InvalidPasswordError):
            ask(url, "SELECT 1", old)
    new = file.read_text()
    assert new == password_of(url) != old
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert new not in (data / "postgres.log").read_text()
    assert works(data)
    assert file.read_text() == new


@pytest.mark.parametrize("kind", ["folder", "link to nothing"])
def test_a_password_path_that_is_no_regular_file_is_refused_with_a_sentence_and_not_changed(
    tmp_path: Path, wheel: Path, kind: str
) -> None:
    start_and_stop(wheel, tmp_path / "data")
    file = tmp_path / "data" / "postgres.password"
    file.unlink()
    if kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(tmp_path / "nothing")
    refused = reason(EmbeddedPostgresError, partial(start_and_stop, wheel, tmp_path / "data"))
    assert {"folder": "regular file", "link to nothing": "symbolic link to nothing"}[kind] in refused
    assert str(file) in refused
    assert file.is_symlink() or file.is_dir()


def test_a_password_file_that_is_damaged_while_the_server_runs_is_reported_to_other_commands(
    tmp_path: Path, wheel: Path
) -> None:
    with pretended_postgres(wheel, tmp_path / "data") as url:
        assert running_url(tmp_path / "data") == url
        (tmp_path / "data" / "postgres.password").write_bytes(b"")
        with pytest.raises(EmbeddedPostgresError, match="is damaged; the next start of the server mends it"):
            running_url(tmp_path / "data")


def test_a_missing_cluster_is_created_with_the_stored_password(tmp_path: Path, wheel: Path) -> None:
    start_and_stop(wheel, tmp_path / "data")
    password = (tmp_path / "data" / "postgres.password").read_text()
    (tmp_path / "data" / "postgres").rename(tmp_path / "away")
    assert_works(wheel, tmp_path / "data")
    assert (tmp_path / "data" / "postgres.password").read_text() == password
