"""The embedded PostgreSQL, which runs when DATABASE_URL is not set: started, watched, stopped."""

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from app.core import files
from app.core.logs import logger
from app.core.postgres_cluster import HOME, ensure_cluster, stored_password
from app.core.postgres_programs import CLUSTER, EmbeddedPostgresError, NotRunningError, Runner, choose_runner
from app.core.processes import Process, end, started_at

__all__ = ["EmbeddedPostgresError", "NotRunningError", "embedded_postgres", "running_url"]

_SOCKET = ".s.PGSQL.5432"
_IN_SHORT_FOLDER = (HOME, _SOCKET, f"{_SOCKET}.lock")  # made by this module and by PostgreSQL
_SHORT_PREFIX = "nanobanana-"
_SOCKET_PATH_BYTES_MAX = 103  # of macOS; Linux takes 107
_ENDINGS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 8.0), (signal.SIGKILL, 5.0))  # fast, immediate, at once
_LOOK_SECONDS = 0.25
_RESTART_SECONDS = 30  # for a killed server's backends to end, and for whatever else is wrong only for a moment
_Outcome = SimpleQueue[str | Exception]  # the URL of the started server, or the error that prevented it
_Ended = SimpleQueue[EmbeddedPostgresError | None]  # the error that ended the thread


@contextmanager
def embedded_postgres(data_dir: Path, *, when_lost: Callable[[], None] | None = None) -> Iterator[str]:
    """Runs a PostgreSQL on `data_dir` for the length of the `with`; yields its URL
    ("postgresql+asyncpg://nanobanana:<password>@/nanobanana?host=<socket dir>").

    The data stays in `data_dir` (as root without user namespaces: below SHARED_ROOT), which is created if it is
    missing; existing files keep their mode and owner. Clients connect by a Unix socket, with the password in
    `postgres.password`, which only the owner can read. Raises EmbeddedPostgresError where the server cannot start,
    for example because another process runs it. The server has ended when the `with` has, by whatever exception;
    after a `kill -9` of this process, the next start ends it.

    With `when_lost`, a server that dies is started again, with the same URL. Where that fails for _RESTART_SECONDS,
    `when_lost` is called in another thread, to end the `with`, and the `with` then raises EmbeddedPostgresError.
    """
    # Signal handlers raise KeyboardInterrupt or SystemExit in the main thread, between any two of its instructions.
    # So a thread of its own starts and stops the server: no exception comes between the start and the `try` that
    # stops it, nor into the stop, and the interpreter waits for the thread before it exits. Each operation that both
    # threads share is atomic; an Event or a `join` that is interrupted halfway can hang the other thread.
    wanted, outcome, ended = threading.Lock(), _Outcome(), _Ended()
    keeper = threading.Thread(target=_keep, args=(data_dir.absolute(), wanted, outcome, ended, when_lost), daemon=False)
    wanted.acquire()
    try:
        keeper.start()
        if isinstance(url := outcome.get(), Exception):
            raise url
        yield url
    finally:
        wanted.release()
        if keeper.ident and (failure := ended.get()):
            raise failure


def running_url(data_dir: Path) -> str:
    """The URL of the embedded PostgreSQL that another process is running on `data_dir`.

    Raises NotRunningError where none is running, and EmbeddedPostgresError where its password cannot be read.
    """
    with suppress(OSError, ValueError):
        pid, started, folder = os.fsdecode(files.read(data_dir / "postgres.state")).split("\n")
        if started and started_at(int(pid)) == started:
            if password := stored_password(file := data_dir / "postgres.password"):
                return _url(Path(folder), password)
            raise EmbeddedPostgresError(f"{file} is damaged; the next start of the server mends it")
    raise NotRunningError(f"No database runs for DATA_DIR ({data_dir}): start `nanobanana serve`, or set DATABASE_URL.")


def _url(folder: Path, password: str) -> str:
    return f"postgresql+asyncpg://nanobanana:{password}@/nanobanana?host={quote(str(folder))}"


class _Prepared(NamedTuple):
    """A cluster that a server can be started on, again and again, with the same URL."""

    runner: Runner
    folder: Path
    state: Path
    url: str


def _keep(
    data_dir: Path, wanted: threading.Lock, outcome: _Outcome, ended: _Ended, when_lost: Callable[[], None] | None
) -> None:
    """The thread of `embedded_postgres`: runs the server until `wanted` is released."""
    has_started, failure = False, None
    try:
        with _prepared(data_dir) as prepared:
            with _running(prepared, wanted) as process:
                outcome.put(prepared.url)
                has_started = True
                _wait(wanted, process if when_lost else None)
            _restart_until_unwanted(prepared, wanted)
    except (EmbeddedPostgresError, OSError, LookupError) as error:
        failure = EmbeddedPostgresError(f"The embedded PostgreSQL in {data_dir} failed: {_reason(error)}.")
        outcome.put(failure)
    finally:
        outcome.put(
            EmbeddedPostgresError("The embedded PostgreSQL failed by a defect; standard error has its traceback.")
        )
        if when_lost and has_started and wanted.locked():
            when_lost()
        ended.put(failure)


def _wait(wanted: threading.Lock, process: Process | None) -> None:
    """Returns when the server is not wanted any more, or when the process, if one is given, has ended."""
    while not _is_unwanted(wanted) and (process is None or process.poll() is None):
        pass


def _is_unwanted(wanted: threading.Lock) -> bool:
    """Whether the server is not wanted any more; waits a moment for that."""
    if wanted.acquire(timeout=_LOOK_SECONDS):
        wanted.release()
        return True
    # A main thread that was interrupted before its `release` would leave this thread waiting for ever.
    return not threading.main_thread().is_alive()


def _restart_until_unwanted(prepared: _Prepared, wanted: threading.Lock) -> None:
    """Starts the server, which has ended, and starts it again whenever it ends.

    Raises what a start raises, if none has succeeded for _RESTART_SECONDS.
    """
    deadline = time.monotonic() + _RESTART_SECONDS
    while not _is_unwanted(wanted):
        try:
            with _running(prepared, wanted) as process:
                logger.warning("embedded_postgres_restarted", every_time=True)
                _wait(wanted, process)
            deadline = time.monotonic() + _RESTART_SECONDS
        except (EmbeddedPostgresError, OSError):
            if time.monotonic() > deadline and wanted.locked():
                raise


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


@contextmanager
def _prepared(data_dir: Path) -> Iterator[_Prepared]:
    files.make_folder(data_dir)
    with _held(data_dir / "postgres.lock"):
        with files.opened_folder(data_dir) as opened:
            files.remove_leftovers(opened)
        _end_leftover(state := data_dir / "postgres.state")
        runner = choose_runner(data_dir)
        with _short_folder(runner, state) as folder:
            password = ensure_cluster(runner, folder, data_dir / "postgres.password")
            yield _Prepared(runner, folder, state, _url(folder, password))


def _held(file: Path) -> BinaryIO:
    try:
        return files.lock(file)
    except BlockingIOError:
        raise EmbeddedPostgresError("another process runs it; end that or use another folder") from None


@contextmanager
def _short_folder(runner: Runner, state: Path) -> Iterator[Path]:
    """A new folder, removed at the end, that only the server's user may enter, with a path that a socket can have."""
    folder = _make_short_folder([runner.home] if runner.account else _temporary_folders(runner.home))
    try:
        files.write(state, os.fsencode(f"0\n\n{folder}"))
        (folder / HOME).symlink_to(runner.home)  # PostgreSQL crashes on paths of 1,024 bytes
        runner.chown(folder)
        yield folder
    finally:
        files.remove_folder(folder, _IN_SHORT_FOLDER)
        state.unlink(missing_ok=True)


def _temporary_folders(home: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):  # there is none that can be written
        yield Path(tempfile.gettempdir())
    yield from (Path("/", "tmp"), home)


def _make_short_folder(parents: Iterable[Path]) -> Path:
    """A new folder in the first of these that can be written, and whose path leaves room for that of a socket."""
    longest = f"/{_SHORT_PREFIX}12345678/{_SOCKET}"
    for parent in parents:
        if len(os.fsencode(parent)) + len(longest) <= _SOCKET_PATH_BYTES_MAX:
            with suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX, dir=parent))
    raise EmbeddedPostgresError("no folder that can be written has a path short enough for a socket; set TMPDIR to one")


@contextmanager
def _running(prepared: _Prepared, wanted: threading.Lock) -> Iterator[Process]:
    """Runs the postmaster, ready for connections, for the length of the `with`."""
    runner, folder, state, _ = prepared
    # A shell waits until `state` holds its pid before it becomes PostgreSQL: it exits if this process is killed first.
    wait_command = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
    settings = ("-D", str(folder / HOME / CLUSTER), "--listen_addresses=", "-k", f'"{folder}"')
    ours, stdin = socket.socketpair()
    logged = runner.logged_bytes()
    with ours, stdin, runner.popen(stdin.fileno(), "postgres", *settings, wait_command=wait_command) as process:
        started = started_at(process.pid)
        try:
            files.write(state, os.fsencode(f"{process.pid}\n{started or ''}\n{folder}"))
            ours.send(b"go\n")
            if not _becomes_ready(process, runner, wanted):
                raise EmbeddedPostgresError(f"it did not become ready{runner.reason(logged)}")
            yield process
        finally:
            end(process.pid, started, _ENDINGS)
            process.kill()  # does nothing to a process that has ended


def _becomes_ready(process: Process, runner: Runner, wanted: threading.Lock) -> bool:
    deadline = time.monotonic() + 60  # recovery after a crash can take long
    while process.poll() is None and time.monotonic() < deadline and wanted.locked():
        time.sleep(0.01)
        with suppress(FileNotFoundError):
            lines = (runner.home / CLUSTER / "postmaster.pid").read_text().split()
            if lines and lines[0] == str(process.pid) and lines[-1] == "ready":
                return True
    return False


def _end_leftover(state: Path) -> None:
    """Ends the postmaster of a process that was killed, and removes its short folder."""
    with suppress(FileNotFoundError, ValueError):
        pid, started, folder = os.fsdecode(files.read(state)).split("\n")
        end(int(pid), started, _ENDINGS)
        files.remove_folder(Path(folder), _IN_SHORT_FOLDER)
