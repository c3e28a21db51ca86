"""Dumps of the embedded PostgreSQL, by the wheel's own pg_dump and pg_restore."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.engine import make_url

from app.core import files
from app.core.postgres_programs import EmbeddedPostgresError, binaries_of_the_wheel
from app.core.processes import ENVIRONMENT, start

_OF_ANY_OWNER = ("--no-owner", "--no-privileges")  # the role has another name elsewhere


def dump(database_url: str, target: Path) -> None:
    """Writes the whole database, as it is at one moment, into the new file `target`, mode 0600, in pg_dump's own format
    ("custom"). The database is read and written meanwhile. The file is whole and on the disk, or it is not there.

    Raises EmbeddedPostgresError, also where there is a file of this name already.
    """
    if target.exists():
        raise EmbeddedPostgresError(f"{target} exists already; name a new file")
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a backup that was killed, or a link that somebody has put there
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o600), "wb") as file:
            # Into this very file: pg_dump would open what has its name by then.
            _run("pg_dump", database_url, "--format=custom", *_OF_ANY_OWNER, output=file)
            os.fsync(file.fileno())
        partial.rename(target)
        files.sync(target.parent)
    except OSError as error:
        raise EmbeddedPostgresError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def restore(database_url: str, source: Path) -> None:
    """Fills the empty database with what is in the dump, all of it or nothing. Raises EmbeddedPostgresError."""
    _run("pg_restore", database_url, "--exit-on-error", "--single-transaction", *_OF_ANY_OWNER, str(source))


def _run(program: str, database_url: str, *arguments: str, output: BinaryIO | None = None) -> None:
    url = make_url(database_url)
    named = f"--dbname=postgresql:///{url.database}?host={url.query['host']}&user={url.username}"
    environment = {**ENVIRONMENT, "PGPASSWORD": url.password or ""}
    command = [str(binaries_of_the_wheel() / program), named, "--no-password", *arguments]
    with start(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE) as process:
        said = process.communicate()[1].decode(errors="replace").splitlines()
    if process.returncode:
        reason = said[0].removeprefix(f"{program}: error: ") if said else f"exit status {process.returncode}"
        raise EmbeddedPostgresError(f"{program} failed: {reason}")
