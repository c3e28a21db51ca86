"""A deployment as an operator runs it: a server with two workers, its PostgreSQL, Redis and provider, a disk of its own
for images, and a Prometheus that scrapes it.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from tests.core.small_disks import MOUNTED
from tests.harness import Account, Key, free_port, generate, looks, sign_up
from tests.ops.prometheus import Prometheus, prometheus
from tests.redis_server import RedisServer, redis_server
from tests.standins.openai import MODEL, OpenAIStandIn
from tests.standins.wire import serving as serving_provider
from tests.starts.servers import url_of
from tests.test_cli import Launch, serving

_KEYS = {"RIGHT_KEY": "the-key-of-the-endpoint", "WRONG_KEY": "a-key-that-is-refused"}
_ROUTE = """
[models.{name}]
price = "0.05"

[[models.{name}.routes]]
name = "{name}"
provider = "openai"
base_url = "{url}/v1"
model = "{model}"
key = "{key}"
"""
_WITH_DISK = 'mkdir -p "$DATA_DIR/pictures" && mount -t tmpfs -o size=16g none "$DATA_DIR/pictures" && exec "$@"'


@dataclass(frozen=True)
class Deployment:
    """All of it, and what a test does with it. `key` is a live key, `test_key` one of the same account."""

    server: subprocess.Popen[str]
    folder: Path
    database_url: str
    redis: RedisServer
    prometheus: Prometheus
    client: httpx2.AsyncClient
    key: Key
    test_key: Key

    async def generate(self, model: str = "picture") -> int:
        """The status of a call for an image of this model, on a new connection, which any worker may accept."""
        return (await generate(self.client, self.key, model=model)).status_code

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.folder / "stderr").read_text()

    @property
    def workers(self) -> list[int]:
        """The pids of the workers that serve."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        return [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    async def until_two_workers_count(self) -> None:
        """Returns once there are two, and both have begun to share their metrics."""
        for _ in looks():
            files = {each.name for each in self.folder.glob("nanobanana-metrics-*/*")}
            if len([pid for pid in self.workers if f"gauge_livesum_{pid}.db" in files]) == 2:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(self.log[-3000:])

    def resize_disk(self, *, free: int) -> None:
        """Leaves so many bytes of the disk for images."""
        disk = self.folder / "pictures"
        status = os.statvfs(f"/proc/{self.server.pid}/root{disk}")
        size = (status.f_blocks - status.f_bfree) * status.f_frsize + free
        namespace = ("nsenter", f"--target={self.server.pid}", "--user", "--mount", "--preserve-credentials", "--")
        subprocess.run([*namespace, "mount", "-o", f"remount,size={size}", disk], check=True)

    async def until_it_generates(self) -> None:
        """Returns once a call for an image succeeds."""
        for _ in looks():
            if await self.generate() == 200:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(self.log[-3000:])

    async def until(self, holds: Callable[[], bool], *, model: str = "picture") -> None:
        """Calls for images, until something holds."""
        for _ in looks():
            await self.generate(model)
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(self.log[-3000:])


@asynccontextmanager
async def deployment(folder: Path, database_url: str) -> AsyncIterator[Deployment]:
    """One that is ready, in this empty folder, with this database."""
    async with AsyncExitStack() as stack:
        provider = OpenAIStandIn(api_key=_KEYS["RIGHT_KEY"])
        url = await stack.enter_async_context(serving_provider(provider.answer))
        redis = stack.enter_context(redis_server(folder))
        models = [("picture", "RIGHT_KEY"), ("refused", "WRONG_KEY")]
        texts = [_ROUTE.format(name=name, url=url, model=MODEL, key=key) for name, key in models]
        (folder / "models.toml").write_text(f'default = "picture"\ncurrency = "USD"\n{"".join(texts)}')
        metrics_port = free_port()
        settings = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis.url,
            "REDIS_TIMEOUT_MS": "5000",  # on a busy machine
            "MODELS_FILE": str(folder / "models.toml"),
            "WORKERS": "2",
            "METRICS_PORT": str(metrics_port),
            "UNKNOWN_KEY_LIMIT_PER_IP": "1/day",
            "TMPDIR": str(folder),
            **_KEYS,
        }
        launch = Launch((*MOUNTED, _WITH_DISK, "sh", sys.executable, "-m", "app.cli", "serve"))
        server, said = await asyncio.to_thread(stack.enter_context, serving(folder, launch, **settings))
        (folder / "prometheus").mkdir()
        scraping = stack.enter_context(prometheus(folder / "prometheus", target=metrics_port))
        client = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=url_of(said), timeout=60, headers={"Connection": "close"})
        )
        account: Account = await sign_up(client)
        keys = await account.create_key(), await account.create_key(environment="test")
        yield Deployment(server, folder, database_url, redis, scraping, client, *keys)
