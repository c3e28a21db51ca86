"""The lines about a server's own life: started, workers that come, go and die, stopped."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app import __version__
from tests.harness import PATIENCE_SECONDS, looks
from tests.test_cli import AS_USUAL, SECRET, environment, serving

Line = dict[str, Any]


def lines_of(text: str) -> list[Line]:
    """The lines about the server's life, without what every line has."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [
        {name: line[name] for name in line if name not in {"timestamp", "logger"}}
        for line in lines
        if line["event"].startswith(("server_", "worker_"))
    ]


def until(find: Callable[[], list[Line]]) -> list[Line]:
    """What is found, once there is something."""
    for _ in looks():
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError("there is no such line")


def test_a_worker_that_dies_is_logged_with_its_signal_and_the_one_in_its_place(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    def said(event: str) -> list[Line]:
        return [line for line in lines_of((tmp_path / "stderr").read_text()) if line["event"] == event]

    with serving(tmp_path, DATABASE_URL=database_url, REDIS_URL=redis_url, WORKERS="2") as (process, _):
        first, _ = until(lambda: said("worker_started") if len(said("worker_started")) == 2 else [])
        os.kill(first["pid"], signal.SIGKILL)
        [died] = until(lambda: [line for line in said("worker_died") if line["pid"] == first["pid"]])
        assert died == {
            "level": "error",
            "event": "worker_died",
            "pid": first["pid"],
            "exit_code": None,
            "signal": "SIGKILL",
            "restarted": True,
        }
        until(lambda: said("worker_started")[2:])
        process.terminate()
        process.wait(PATIENCE_SECONDS)
    started, stopped, dead = ({line["pid"] for line in said(f"worker_{end}")} for end in ("started", "stopped", "died"))
    assert stopped == started - dead
    assert [line["signal"] for line in said("server_stopping")] == ["SIGTERM"]
    assert len(said("server_stopped")) == 1


def test_standard_output_holds_lines_alone_from_the_start_to_the_stop(tmp_path: Path, database_url: str) -> None:
    settings = {"ENVIRONMENT": "production", "SECRET_KEY": SECRET, "LOG_STREAM": "stdout", "LOG_FORMAT": "auto"}
    given = environment(tmp_path, DATABASE_URL=database_url, **settings)
    with (
        (tmp_path / "stderr").open("wb") as errors,
        subprocess.Popen(AS_USUAL.command, env=given, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "worker_started" in line:
                process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert "is the image" in (tmp_path / "stderr").read_text()
    assert all(line.startswith("{") for line in lines)
    assert lines_of("".join(lines)) == [
        {
            "level": "info",
            "event": "server_started",
            "version": __version__,
            "environment": "production",
            "host": "127.0.0.1",
            "port": int(given["PORT"]),
            "workers": 1,
            "provider": "stub",
            "store": "disk",
        },
        {"level": "info", "event": "worker_started", "pid": process.pid},
        {"level": "info", "event": "server_stopping", "signal": "SIGTERM"},
        {"level": "info", "event": "worker_stopped", "pid": process.pid},
        {"level": "info", "event": "server_stopped"},
    ]
