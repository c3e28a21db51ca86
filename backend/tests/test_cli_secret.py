"""The secret in DATA_DIR: one that is weak or cannot be read never signs a token."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from app.core.settings import Settings
from tests.core.embedded_servers import AS_ORDINARY_USER
from tests.test_cli import SECRET, WAIT_SECONDS, environment, nanobanana_in_here

TORN = "kq3TzUyPqoVw8sJc2mXhR7nLb5Gd9f"  # 30 bytes
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "is shorter than 32 bytes"),
    "torn": (lambda file: file.write_text(TORN), "is shorter than 32 bytes"),
    "zeros": (lambda file: file.write_bytes(bytes(64)), "is one that others know or can guess"),
    "no text": (lambda file: file.write_bytes(b"\xff" * 64), "is not text in UTF-8"),
    "folder": (lambda file: file.mkdir(), "cannot be read or made (It is not a regular file)"),
    "link to nothing": (
        lambda file: file.symlink_to("gone"),
        "cannot be read or made (It is a symbolic link to nothing)",
    ),
}


def as_ordinary_user(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AS_ORDINARY_USER, sys.executable, "-m", "app.cli", *arguments],
        env=environment(data_dir),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def assert_refused(done: "subprocess.CompletedProcess[str]", secret: Path, reason: str) -> None:
    """It ended with one line: the file, its fault, and how to mend it."""
    assert done.returncode == 1
    assert done.stderr.startswith(f"nanobanana: The secret in {secret} {reason}")
    assert done.stderr.endswith("or set SECRET_KEY.\n")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def assert_unwritable(done: "subprocess.CompletedProcess[str]", data_dir: Path, reason: str) -> None:
    sentence = f"nanobanana: DATA_DIR ({data_dir}) cannot be written: {reason}.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


def _identity(path: Path) -> tuple[int, int, int, int]:
    """What is another one once the file, or the link, has been replaced or written. Reading it changes nothing here."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_secret_ends_the_start_with_a_sentence_and_is_not_replaced(tmp_path: Path, damage: str) -> None:
    damaged, reason = DAMAGES[damage]
    damaged(tmp_path / "secret_key")
    before = _identity(tmp_path / "secret_key")
    done = nanobanana_in_here(tmp_path, "check")
    assert_refused(done, tmp_path / "secret_key", reason)
    assert TORN not in done.stderr
    assert _identity(tmp_path / "secret_key") == before
    assert nanobanana_in_here(tmp_path, "check", SECRET_KEY=SECRET).returncode == 0


def test_an_empty_secret_ends_the_start_and_deleting_it_mends_that(tmp_path: Path) -> None:
    (tmp_path / "secret_key").touch()
    refused = nanobanana_in_here(tmp_path, "serve")
    assert_refused(refused, tmp_path / "secret_key", "is shorter than 32 bytes: delete the file")
    assert not (tmp_path / "postgres").exists()
    (tmp_path / "secret_key").unlink()
    Settings(data_dir=tmp_path).with_secret()
    assert len((tmp_path / "secret_key").read_bytes()) == 64


def test_a_secret_that_cannot_be_read_or_made_ends_the_start_with_a_sentence_about_file_or_folder(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret_key"
    secret.write_text(SECRET)
    secret.chmod(0)
    assert_refused(as_ordinary_user(tmp_path, "check"), secret, "cannot be read or made (Permission denied)")
    secret.unlink()
    tmp_path.chmod(0o500)
    assert_unwritable(as_ordinary_user(tmp_path, "serve"), tmp_path, "Permission denied")
    tmp_path.chmod(0o700)
    (tmp_path / "file").touch()
    assert_unwritable(as_ordinary_user(tmp_path / "file", "serve"), tmp_path / "file", "Not a directory")
