"""The data of the embedded PostgreSQL and the password of its only role: made once, whole, and mended."""

import re
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from app.core import files
from app.core.postgres_programs import CLUSTER, VERSION, EmbeddedPostgresError, Runner

HOME = "home"
"""A link to the runner's home in the short folder."""

_PASSWORD = re.compile(rb"[\w-]{43}")  # 32 random bytes as base64url


def ensure_cluster(runner: Runner, folder: Path, password_file: Path) -> str:
    """Creates the cluster if there is none, completely or not at all; returns the password of its only role.

    Where the password's file is missing or damaged, the role gets a new password.
    """
    cluster = runner.home / CLUSTER
    password = stored_password(password_file) or secrets.token_urlsafe(32)
    for leftover in runner.home.glob(f"{CLUSTER}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if not cluster.exists() or not any(cluster.iterdir()):
        files.write(password_file, password.encode())  # before the cluster, which never exists without its password
        _make_cluster(runner, folder, password)
    if not (cluster / "PG_VERSION").exists():
        raise EmbeddedPostgresError(f"{cluster} holds something else than its data; move that away")
    _close_to_others(cluster)
    if (version := (cluster / "PG_VERSION").read_text().strip()) != VERSION:
        raise EmbeddedPostgresError(f"PostgreSQL {version} wrote its data, and {VERSION} cannot read that")
    if not stored_password(password_file):
        _run_single(runner, folder / HOME / CLUSTER, f"ALTER ROLE nanobanana PASSWORD '{password}'")
        files.write(password_file, password.encode())  # after a crash before this, the next start does both again
    return password


def _close_to_others(cluster: Path) -> None:
    """Takes from others what they may do in our own folder: PostgreSQL refuses data that a mount has opened to them."""
    if stat.S_IMODE(cluster.stat().st_mode) & (stat.S_IWGRP | stat.S_IRWXO):
        cluster.chmod(0o700)


def stored_password(file: Path) -> str | None:
    """The password in the file; None where there is no file, or where it does not hold a whole password."""
    with suppress(FileNotFoundError):
        content = files.read(file)
        return content.decode() if _PASSWORD.fullmatch(content) else None
    return None


def _make_cluster(runner: Runner, folder: Path, password: str) -> None:
    # A new name each time: the initdb of a process that was killed may still be writing to the last one.
    new = Path(tempfile.mkdtemp(prefix=f"{CLUSTER}.new-", dir=runner.home))
    runner.chown(new)
    data = folder / HOME / new.name
    locale = ("--encoding=UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    login = ("--username=nanobanana", "--auth=scram-sha-256", "--pwfile=/dev/stdin")
    runner.run(password, "initdb", "-D", str(data), *login, *locale)
    _run_single(runner, data, "CREATE DATABASE nanobanana")
    new.rename(runner.home / CLUSTER)
    files.sync(runner.home)  # else a power cut may undo the rename


def _run_single(runner: Runner, data: Path, statement: str) -> None:
    """Runs a statement on data that no server is using."""
    runner.run(statement, "postgres", "--single", "-D", str(data), "--exit_on_error=on", "template1")
