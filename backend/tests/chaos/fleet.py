"""`nanobanana serve` with several workers."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from app.core.limit_settings import LimitSettings
from tests.chaos.load import Call, Key, lines_to_every_worker
from tests.chaos.workers import LOOK_SECONDS, Workers
from tests.harness import free_port

BACKEND = Path(__file__).parents[2]
PROGRAM = ("-m", "app.cli", "serve")
STOP_SECONDS = 45  # longer than the server's own grace

_START_SECONDS = 60
_LOOKS = 40  # at connections that no worker may be there to accept
_WIDE_OPEN = {
    **{name.upper(): "1000000/second" for name in LimitSettings.model_fields if re.search("_limit_(?!mode)", name)},
    "GENERATE_CONCURRENCY_PER_KEY": "1000000",
    "KEYS_PER_ACCOUNT_MAX": "10000",
}
_SECRET = "kq3TzUyPqoVw8sJc2mXhR7nLb5Gd9fAeYi4tKx1u"


class Fleet(Workers):
    """A running server: one parent that we started, and the workers that it started."""

    def __init__(self, process: subprocess.Popen[bytes], *, port: int, size: int, said: Path) -> None:
        super().__init__(process.pid, port=port, size=size)
        self.url = f"http://127.0.0.1:{port}"
        self._process = process
        self._said = said

    async def listening(self) -> None:
        """Returns once it has taken its port."""
        async with asyncio.timeout(_START_SECONDS):
            while self._process.poll() is None:
                with suppress(ConnectionError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.transport.abort()
                    return
                await asyncio.sleep(LOOK_SECONDS)
        raise AssertionError(self._said.read_text()[-2000:])

    async def whole(self) -> None:
        """Returns once as many workers as there should be accept connections."""
        async with asyncio.timeout(_START_SECONDS):
            while len(await self._probe()) < self.size:
                assert self._process.poll() is None, self._said.read_text()[-2000:]

    async def _probe(self) -> set[int]:
        """The workers that accept some new connections."""
        probes = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(4 * self.size)]
        ports = {writer.get_extra_info("sockname")[1] for _, writer in probes}
        accepted: dict[int, int] = {}
        for _ in range(_LOOKS):
            await asyncio.sleep(LOOK_SECONDS)
            accepted = {port: worker for port, worker in self.holders().items() if port in ports}
            if len(accepted) == len(ports):
                break
        for _, writer in probes:
            writer.transport.abort()
        return set(accepted.values())

    def kill(self, worker: int) -> None:
        """SIGKILL, for a worker of this server and nobody else."""
        self._send(worker, signal.SIGKILL)

    def freeze(self, worker: int) -> None:
        """It keeps its connections and does nothing, until it is thawed."""
        self._send(worker, signal.SIGSTOP)

    def thaw(self, worker: int) -> None:
        self._send(worker, signal.SIGCONT)

    def _send(self, worker: int, number: signal.Signals) -> None:
        descriptor = os.pidfd_open(worker)
        try:
            assert worker in self.workers(), "not ours any more"
            signal.pidfd_send_signal(descriptor, number)
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


def environment_of(database_url: str, redis_url: str, folder: Path, **settings: str) -> dict[str, str]:
    """The environment of a process of ours with these settings, and no others.

    No limit is met by accident, and Redis has more time than by default: on a busy machine it would seem to be away.
    """
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        **_WIDE_OPEN,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "REDIS_TIMEOUT_MS": "1000",
        "DATA_DIR": str(folder),
        "SECRET_KEY": _SECRET,
        "ENVIRONMENT": "production",
        "LOG_LEVEL": "WARNING",
        **settings,
    }


Serve = Callable[..., AbstractAsyncContextManager[Fleet]]


@asynccontextmanager
async def serving(
    database_url: str,
    redis_url: str,
    folder: Path,
    *,
    program: Sequence[str] = PROGRAM,
    workers: int = 4,
    **settings: str,
) -> AsyncIterator[Fleet]:
    """A server all of whose workers accept connections, ended at the end. What it says goes to `said` in the folder."""
    port = free_port()
    said = folder / f"said-{port}"
    environment = environment_of(database_url, redis_url, folder, PORT=str(port), WORKERS=str(workers), **settings)
    fleet = Fleet(_start(program, environment, said), port=port, size=workers, said=said)
    try:
        await fleet.listening()
        await fleet.whole()
        yield fleet
    finally:
        await fleet.end()


async def everything_works_again(fleet: Fleet, key: Key, journal: list[Call]) -> None:
    """Returns once there are as many workers as before, and each has answered with a picture."""
    await fleet.whole()
    async with lines_to_every_worker(fleet, journal, each=1) as lines, asyncio.timeout(_START_SECONDS):
        for worker, [line] in enumerate(lines):
            tries = 0
            while (await line.ask(key, f"afterwards {worker} {tries}")).outcome != "ok":
                tries += 1
                await asyncio.sleep(0.1)


def _start(program: Sequence[str], environment: dict[str, str], said: Path) -> subprocess.Popen[bytes]:
    with said.open("wb") as output:
        command = [sys.executable, *program]
        return subprocess.Popen(command, env=environment, cwd=BACKEND, stdout=output, stderr=output)
