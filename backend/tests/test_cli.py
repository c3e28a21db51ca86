"""`nanobanana` as a process: its output and its exit status."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx2
import pytest
from app import migrations
from app.cli import main
from app.core.embedded import embedded_postgres
from click.testing import CliRunner
from PIL import Image
from tests.harness import free_port, fresh_database, looks, on_server

SECRET = "kq3TzUyPqoVw8sJc2mXhR7nLb5Gd9fAeYi4tKx1u"
WAIT_SECONDS = 60
FORM_OF_URL = "must begin with postgresql://, such as postgresql://user:password@host:5432/nanobanana"


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """An environment with these settings and without those of the person who runs the tests."""
    kept = ("PATH", "HOME", "TMPDIR")
    inherited = {name: os.environ[name] for name in kept if name in os.environ}
    return {**inherited, "LOG_FORMAT": "json", "DATA_DIR": str(data_dir), "PORT": str(free_port()), **settings}


def nanobanana(data_dir: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=environment(data_dir, **settings),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def nanobanana_in_here(
    data_dir: Path, *arguments: str, stdin: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """The command in this process, which is quicker than another, with the environment that the other would have. Not
    for a `serve` that starts: it takes over the signals.
    """
    everything = {**dict.fromkeys(os.environ), **environment(data_dir, **settings)}
    done = CliRunner().invoke(main, arguments, input=stdin, env=everything)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@dataclass(frozen=True)
class Launch:
    """How a server is started: its command, its folder, its input, and where its errors go instead of to a file."""

    command: Sequence[str] = (sys.executable, "-m", "app.cli", "serve")
    cwd: Path | None = None
    stdin: int | None = None
    stderr: int | None = None


AS_USUAL = Launch()


@contextmanager
def serving(
    data_dir: Path, launch: Launch = AS_USUAL, /, **settings: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that has printed its URL, and its output until then. Its errors go to the file `stderr`."""
    with (data_dir / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            launch.command,
            cwd=launch.cwd,
            env=environment(data_dir, **settings),
            stdin=launch.stdin,
            stdout=subprocess.PIPE,
            stderr=errors if launch.stderr is None else launch.stderr,
            text=True,
        )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "is the image" in line:
            break
    try:
        yield process, said
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_SECONDS)


def processes_of(data_dir: Path) -> list[str]:
    """The names of all processes with this DATA_DIR in their environment, or with a working directory in it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            at_home = (folder / "cwd").resolve().is_relative_to(data_dir)
            if at_home or f"DATA_DIR={data_dir}\0".encode() in (folder / "environ").read_bytes():
                found.append((folder / "comm").read_text().strip())
    return found


def until_shown(port: str, *texts: str) -> None:
    """Returns once the metrics on METRICS_PORT, which are a second old at most, have these texts in them."""
    for _ in looks():
        shown = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_SECONDS).text
        if all(text in shown for text in texts):
            return
        time.sleep(0.05)
    raise AssertionError(shown)


def test_help_lists_every_command(tmp_path: Path) -> None:
    said = nanobanana_in_here(tmp_path, "--help").stdout
    for word in ("serve", "migrate", "settings", "image-generation"):
        assert word in said


@pytest.mark.parametrize("secret", ["", "tiny-key", "change-me-change-me-change-me-change-me"])
def test_production_ends_with_one_sentence_and_no_secret_in_it(tmp_path: Path, secret: str) -> None:
    done = nanobanana_in_here(tmp_path / "data", "serve", ENVIRONMENT="production", SECRET_KEY=secret)
    assert done.returncode == 1
    assert done.stderr.startswith("nanobanana: SECRET_KEY is ")
    assert done.stderr.count("\n") == 1
    assert not secret or secret not in done.stderr
    assert not (tmp_path / "data").exists(), "nothing was started or made"


def test_a_port_in_use_ends_the_start_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = nanobanana_in_here(tmp_path / "data", "serve", PORT=str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"nanobanana: Cannot listen on 127.0.0.1:{port}")
    assert not (tmp_path / "data" / "postgres").exists()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql+asyncpg://u:hunter2@127.0.0.1:1/n", "cannot be reached"),
        ("postgresql+asyncpg://u:hunter2@no-such-host.invalid/n", "cannot be reached"),
        ("mysql://u:hunter2@127.0.0.1/n", f"DATABASE_URL {FORM_OF_URL}"),
        ("localhost/hunter2", f"DATABASE_URL {FORM_OF_URL}"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path: Path, command: str, url: str, sentence: str) -> None:
    done = nanobanana_in_here(tmp_path, command, DATABASE_URL=url)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_a_schema_that_is_behind_is_refused_until_it_is_migrated(tmp_path: Path, server_url: str) -> None:
    with fresh_database(server_url) as url:
        refused = nanobanana_in_here(tmp_path, "serve", DATABASE_URL=url)
        assert refused.returncode == 1
        assert refused.stderr.endswith("Run: nanobanana migrate\n")
        for run in (nanobanana, nanobanana_in_here):
            assert run(tmp_path, "migrate", DATABASE_URL=url).returncode == 0
        with serving(tmp_path, DATABASE_URL=url, SECRET_KEY=SECRET, ENVIRONMENT="production") as (process, _):
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_SECONDS) == 128 + signal.SIGTERM


def test_a_database_that_may_lose_commits_is_refused(tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "server") as url:
        on_server(url, "alter system set fsync = off")
        on_server(url, "select pg_reload_conf()")
        refused = nanobanana_in_here(tmp_path, "serve", DATABASE_URL=url)
    assert refused.returncode == 1
    assert refused.stderr.startswith("nanobanana: The database runs with fsync=off")


def test_a_failed_migration_ends_with_a_sentence_and_leaves_nothing_half_done(tmp_path: Path, server_url: str) -> None:
    with fresh_database(server_url) as url:
        on_server(url, "create table usage ()")
        done = nanobanana_in_here(tmp_path, "migrate", DATABASE_URL=url)
        assert done.returncode == 1
        assert done.stderr.startswith("nanobanana: The migration stopped; run it again, and it goes on")
        on_server(url, "create table users ()")  # would fail if the migration had left it behind


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_the_printed_commands_make_an_image_and_a_signal_stops_everything(
    tmp_path: Path, redis_url: str, number: signal.Signals, workers: str
) -> None:
    port = str(free_port())
    with serving(tmp_path, WORKERS=workers, REDIS_URL=redis_url, METRICS_PORT=port) as (process, said):
        lines = [line for line in said.splitlines() if line.startswith(("curl ", "KEY="))]
        assert len(lines) == 3
        shell = subprocess.run(["bash", "-euc", "\n".join(lines)], capture_output=True, text=True, check=True)
        url = shell.stdout.rpartition('"url":"')[2].partition('"')[0]
        with Image.open(BytesIO(httpx2.get(url, timeout=WAIT_SECONDS).content)) as picture:
            assert (picture.format, picture.size) == ("PNG", (1024, 1024))
        assert "database: ok, built in\n" in nanobanana_in_here(tmp_path, "check").stdout
        until_shown(port, f"nanobanana_workers {workers}.0", 'outcome="delivered",route=""} 1.0')
        assert "postgres" in processes_of(tmp_path)
        process.send_signal(number)
        process.wait(WAIT_SECONDS)
    assert processes_of(tmp_path) == []


def test_workers_end_with_a_killed_parent_and_the_next_start_works(
    tmp_path: Path, server_url: str, redis_url: str
) -> None:
    with fresh_database(server_url) as url:
        migrations.upgrade(url)
        port = str(free_port())
        for _ in range(2):
            with serving(tmp_path, DATABASE_URL=url, REDIS_URL=redis_url, WORKERS="2", PORT=port) as (process, _):
                assert httpx2.get(f"http://127.0.0.1:{port}/ready", timeout=WAIT_SECONDS).status_code == 200
                process.kill()
                process.communicate(timeout=WAIT_SECONDS)  # ends when the last worker has closed its standard output
            assert processes_of(tmp_path) == []


def test_a_disabled_account_is_refused_at_once_and_an_enabled_one_has_its_keys_again(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, said):
        lines = [line for line in said.splitlines() if line.startswith(("curl ", "KEY="))]
        url = lines[0].split()[2].removesuffix("/v1/auth/register")
        shell = subprocess.run(
            ["bash", "-euc", "\n".join([*lines, "echo", "echo $KEY"])], capture_output=True, text=True, check=True
        )
        key = {"Authorization": f"Bearer {shell.stdout.split()[-1]}"}

        def generate() -> int:
            body = {"prompt": "A cute banana"}
            return httpx2.post(f"{url}/v1/generate", json=body, headers=key, timeout=WAIT_SECONDS).status_code

        assert generate() == 200
        assert nanobanana_in_here(tmp_path, "accounts", "disable", "YOU@example.com").returncode == 0
        assert generate() == 401
        assert nanobanana_in_here(tmp_path, "accounts", "enable", "you@example.com").returncode == 0
        assert generate() == 200
        stranger = nanobanana_in_here(tmp_path, "accounts", "disable", "stranger@example.com")
        assert (stranger.returncode, stranger.stderr) == (1, "nanobanana: There is no account with that email.\n")
    sentence = f"No database runs for DATA_DIR ({tmp_path}): start `nanobanana serve`, or set DATABASE_URL."
    for command in (("accounts", "enable", "you@example.com"), ("accounts", "list")):
        refused = nanobanana_in_here(tmp_path, *command)
        assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", f"nanobanana: {sentence}\n")
