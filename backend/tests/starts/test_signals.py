"""A terminal that is closed stops the server as SIGTERM does, with one worker and with several."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen

import httpx2
import pytest
from tests.harness import PATIENCE_SECONDS
from tests.starts.servers import url_of
from tests.test_cli import AS_USUAL, Launch, processes_of, serving

LOG_IN = b"POST /v1/auth/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nConnection: close\r\n"


@pytest.fixture(autouse=True)
def terminals_end_programs() -> Iterator[None]:
    """A server that a test starts is ended by SIGHUP, even where the tests run under `nohup`, which would pass on that
    the signal is ignored.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def request_in_progress(url: str) -> Iterator[socket.socket]:
    """A connection whose request the server works on: it has asked for the body, of two bytes."""
    address = (httpx2.URL(url).host, httpx2.URL(url).port or 80)
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(LOG_IN + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        yield connection


def until_closed(url: str) -> None:
    """Returns once no new connection is answered: with several workers, the parent's socket still takes it."""
    with suppress(httpx2.TransportError):
        while True:
            httpx2.get(f"{url}/health", timeout=1)


def hang_up(process: Popen[str]) -> None:
    """What a closed terminal does to all processes in its foreground."""
    os.killpg(process.pid, signal.SIGHUP)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_closed_terminal_stops_everything_once_accepted_requests_are_answered(
    data_dir: Path, redis_url: str, workers: str
) -> None:
    launch = Launch(("setsid", *AS_USUAL.command))  # a process group of its own, as a shell gives it
    with serving(data_dir, launch, WORKERS=workers, REDIS_URL=redis_url) as (process, said):
        with request_in_progress(url_of(said)) as connection:
            hang_up(process)
            until_closed(url_of(said))
            connection.sendall(b"{}")
            assert connection.recv(100).startswith(b"HTTP/1.1 422")
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert processes_of(data_dir) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_started_with_nohup_outlives_its_terminal(
    data_dir: Path, database_url: str, redis_url: str, workers: str
) -> None:
    settings = {"DATABASE_URL": database_url, "WORKERS": workers, "REDIS_URL": redis_url}
    with serving(data_dir, Launch(("setsid", "nohup", *AS_USUAL.command)), **settings) as (process, said):
        for _ in range(3):
            assert httpx2.get(f"{url_of(said)}/ready", timeout=PATIENCE_SECONDS).status_code == 200
            hang_up(process)
        assert process.poll() is None


WRITES_WITHOUT_TERMINAL = """
import os, sys, threading, time

def write():
    while os.isatty(2):
        time.sleep(0.001)
    print("that nobody reads", file=sys.stderr)

threading.Thread(target=write, daemon=True).start()
"""


@pytest.mark.parametrize("last_words", ["", WRITES_WITHOUT_TERMINAL])
def test_a_terminal_that_is_really_closed_leaves_no_process(data_dir: Path, tmp_path: Path, last_words: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(last_words)
    ours, terminal = os.openpty()
    launch = Launch(("setsid", "--ctty", *AS_USUAL.command), stdin=terminal, stderr=terminal)
    try:
        with serving(data_dir, launch, PYTHONPATH=str(tmp_path)) as (process, _):
            assert "postgres" in processes_of(data_dir)
            os.close(ours)
            assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    finally:
        os.close(terminal)
    assert processes_of(data_dir) == []


def test_workers_that_cannot_start_end_the_program_with_a_sentence(
    data_dir: Path, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    fails = "import os, sys; '--multiprocessing-fork' in sys.orig_argv and os._exit(3)"
    (tmp_path / "sitecustomize.py").write_text(fails)
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PYTHONPATH": str(tmp_path)}
    with serving(data_dir, WORKERS="2", **settings) as (process, _):
        assert process.wait(PATIENCE_SECONDS) == 1
    said = (data_dir / "stderr").read_text().splitlines()
    assert "nanobanana: The workers cannot start; the log has the reason." in said
