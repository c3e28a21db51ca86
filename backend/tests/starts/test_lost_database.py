"""An embedded PostgreSQL that dies is started again, or the program ends with a sentence."""

import os
import signal
import sys
import time
from pathlib import Path
from threading import Event

import httpx2
import pytest
from app.core import embedded
from app.core.embedded import EmbeddedPostgresError
from tests.core.embedded_servers import ask
from tests.core.pretended_postgres import make_wheel, pretended_postgres
from tests.harness import PATIENCE_SECONDS, looks
from tests.starts.servers import url_of
from tests.test_cli import Launch, processes_of, serving

GIVES_UP_SOON = (
    *(sys.executable, "-c"),
    "from app.core import embedded; embedded._RESTART_SECONDS = 0; from app.cli import main; main(['serve'])",
)


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres.state").read_text().split("\n")[0])


def until_another_runs(data_dir: Path, dead: int) -> int:
    for _ in looks():
        if (running := postmaster(data_dir)) not in {0, dead}:
            return running
        time.sleep(0.05)
    raise AssertionError("it is not started again")


def until_logged(data_dir: Path, event: str) -> None:
    for _ in looks():
        if event in (data_dir / "stderr").read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{event} is not logged")


def until_ready(url: str) -> None:
    for _ in looks():
        if httpx2.get(f"{url}/ready", timeout=PATIENCE_SECONDS).status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError("it is not ready again")


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGQUIT, "1"), (signal.SIGKILL, "2")])
def test_a_server_whose_database_died_is_ready_again_by_itself(
    data_dir: Path, redis_url: str, number: signal.Signals, workers: str
) -> None:
    with serving(data_dir, WORKERS=workers, REDIS_URL=redis_url) as (process, said):
        until_ready(url_of(said))
        os.kill(dead := postmaster(data_dir), number)
        until_another_runs(data_dir, dead)
        until_logged(data_dir, "embedded_postgres_restarted")
        until_ready(url_of(said))
        assert process.poll() is None
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert processes_of(data_dir) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_whose_database_cannot_be_started_again_ends_with_a_sentence(
    data_dir: Path, redis_url: str, workers: str
) -> None:
    with serving(data_dir, Launch(GIVES_UP_SOON), WORKERS=workers, REDIS_URL=redis_url) as (process, said):
        until_ready(url_of(said))
        (data_dir / "postgres" / "PG_VERSION").write_text("17\n")
        os.kill(postmaster(data_dir), signal.SIGKILL)
        assert process.wait(PATIENCE_SECONDS) == 1
    [sentence] = [line for line in (data_dir / "stderr").read_text().splitlines() if not line.startswith("{")]
    assert sentence.startswith(f"nanobanana: The embedded PostgreSQL in {data_dir} failed: it did not become ready (")
    assert "incompatible with server" in sentence
    assert processes_of(data_dir) == []


def test_a_restarted_server_has_the_same_url_and_its_data(data_dir: Path) -> None:
    with embedded.embedded_postgres(data_dir, when_lost=pytest.fail) as url:
        ask(url, "create table kept as select 'a row' as content")
        os.kill(dead := postmaster(data_dir), signal.SIGKILL)
        running = until_another_runs(data_dir, dead)
        for _ in looks():
            words = (data_dir / "postgres" / "postmaster.pid").read_text().split()
            if words[:1] == [str(running)] and words[-1] == "ready":
                break
            time.sleep(0.05)
        assert ask(url, "select content from kept") == "a row"
        assert embedded.running_url(data_dir) == url


def break_and_kill(program: Path, data_dir: Path) -> None:
    program.write_text("#!/bin/sh\necho FATAL:  it is broken\nexit 1\n")
    os.kill(postmaster(data_dir), signal.SIGKILL)


def test_the_with_raises_when_no_restart_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(wheel := tmp_path / "wheel")
    monkeypatch.setattr(embedded, "_RESTART_SECONDS", 0)
    lost = Event()

    def lose() -> None:
        with pretended_postgres(wheel, tmp_path / "data", when_lost=lost.set):
            break_and_kill(wheel / "pginstall18" / "bin" / "postgres", tmp_path / "data")
            assert lost.wait(PATIENCE_SECONDS)

    with pytest.raises(EmbeddedPostgresError, match=r"it did not become ready \(it is broken\), see "):
        lose()


def test_the_with_can_be_left_while_a_restart_fails(tmp_path: Path) -> None:
    make_wheel(wheel := tmp_path / "wheel")
    with pretended_postgres(wheel, tmp_path / "data", when_lost=pytest.fail):
        break_and_kill(wheel / "pginstall18" / "bin" / "postgres", tmp_path / "data")
