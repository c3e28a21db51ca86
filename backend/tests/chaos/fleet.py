"""`nanobanana serve` with several workers, and which of them is who."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.core.processes import PROC

BACKEND = Path(__file__).parents[2]
PROGRAM = ("-m", "app.cli", "serve")
STOP_SECONDS = 45  # longer than the server's own grace

_START_SECONDS = 60
_LOOK_SECONDS, _LOOKS = 0.05, 40
_WIDE_OPEN = "1000000/second"
_LIMITS = ("GENERATE_LIMIT_PER_KEY", "REGISTER_LIMIT_PER_IP", "LOGIN_LIMIT_PER_IP", "LOGIN_LIMIT_PER_ACCOUNT")
_SECRET = "kq3TzUyPqoVw8sJc2mXhR7nLb5Gd9fAeYi4tKx1u"


class Fleet:
    """A running server: one parent that we started, and the workers that it started."""

    def __init__(self, process: subprocess.Popen[bytes], *, port: int, size: int, said: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process = process
        self._size = size
        self._said = said

    def workers(self) -> Sequence[int]:
        """Who answers requests: the children that uvicorn spawned, or with one worker the process itself."""
        if self._size == 1:
            return [self._process.pid]
        mine = [pid for pid in _children(self._process.pid) if b"spawn_main" in _command(pid)]
        return sorted(mine)

    def holders(self) -> dict[int, int]:
        """Which worker holds the connection that a client has from this port: those that were accepted."""
        return {there: worker for worker, here, there in self._connections() if here == self.port}

    def owner_of(self, outgoing: int) -> int:
        """The worker whose connection to somewhere leaves from this port."""
        return next(worker for worker, here, _ in self._connections() if here == outgoing)

    async def has_left(self, port: int) -> None:
        """Returns once every worker has seen that its connections to this port are gone."""
        for _ in range(_LOOKS):
            if all(there != port for _, _, there in self._connections()):
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError("a worker still holds one")

    def _connections(self) -> Sequence[tuple[int, int, int]]:
        """Worker, its port, the other's port."""
        ports = {}
        for line in (PROC / "net/tcp").read_text().splitlines()[1:]:
            _, local, remote, *rest = line.split()
            ports[f"socket:[{rest[6]}]"] = int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)
        held = [(link, worker) for worker in self.workers() for link in _open_files(worker)]
        return [(worker, *ports[link]) for link, worker in held if link in ports]

    async def listening(self) -> None:
        """Returns once it has taken its port."""
        async with asyncio.timeout(_START_SECONDS):
            while self._process.poll() is None:
                with suppress(ConnectionError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.transport.abort()
                    return
                await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError(self._said.read_text()[-2000:])

    async def whole(self) -> None:
        """Returns once as many workers as there should be accept connections."""
        async with asyncio.timeout(_START_SECONDS):
            while len(await self._probe()) < self._size:
                assert self._process.poll() is None, self._said.read_text()[-2000:]

    async def _probe(self) -> set[int]:
        """The workers that accept some new connections."""
        probes = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(4 * self._size)]
        ports = {writer.get_extra_info("sockname")[1] for _, writer in probes}
        accepted: dict[int, int] = {}
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_SECONDS)
            accepted = {port: worker for port, worker in self.holders().items() if port in ports}
            if len(accepted) == len(ports):
                break
        for _, writer in probes:
            writer.transport.abort()
        return set(accepted.values())

    def kill(self, worker: int) -> None:
        """SIGKILL, for a worker of this server and nobody else."""
        descriptor = os.pidfd_open(worker)
        try:
            assert worker in self.workers(), "not ours any more"
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)

    async def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, STOP_SECONDS)

    async def end(self) -> None:
        """Stops it whatever state it is in; workers end with their parent."""
        try:
            await self.stop()
        finally:
            self._process.kill()


def _children(parent: int) -> Sequence[int]:
    found = []
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):
            status, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and status != "Z":
                found.append(int(folder.name))
    return found


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes()
    return b""


def _open_files(pid: int) -> set[str]:
    links = set()
    with suppress(OSError):
        for link in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                links.add(str(link.readlink()))
    return links


@asynccontextmanager
async def serving(
    database_url: str, folder: Path, *, program: Sequence[str] = PROGRAM, workers: int = 4, **settings: str
) -> AsyncIterator[Fleet]:
    """A server all of whose workers accept connections, ended at the end. What it says goes to `said` in the folder."""
    port = _free_port()
    said = folder / f"said-{port}"
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        **dict.fromkeys(_LIMITS, _WIDE_OPEN),
        "DATABASE_URL": database_url,
        "DATA_DIR": str(folder),
        "SECRET_KEY": _SECRET,
        "ENVIRONMENT": "production",
        "LOG_LEVEL": "WARNING",
        "PORT": str(port),
        "WORKERS": str(workers),
        **settings,
    }
    fleet = Fleet(_start(program, environment, said), port=port, size=workers, said=said)
    try:
        await fleet.listening()
        await fleet.whole()
        yield fleet
    finally:
        await fleet.end()


def _start(program: Sequence[str], environment: dict[str, str], said: Path) -> subprocess.Popen[bytes]:
    with said.open("wb") as output:
        command = [sys.executable, *program]
        return subprocess.Popen(command, env=environment, cwd=BACKEND, stdout=output, stderr=output)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
