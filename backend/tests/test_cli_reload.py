"""`nanobanana reload`: a server under traffic takes on changed settings, and no call fails."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import CompletedProcess

import httpx2
import pytest
from tests.chaos.workers import Workers
from tests.harness import Account, Key, free_port, looks
from tests.standins.gemini import MODEL, GeminiStandIn
from tests.standins.wire import Reply, Seen, serving
from tests.test_cli import SECRET, Launch, nanobanana_in_here
from tests.test_cli import serving as server_process

CALLERS = 4
OLD_KEY, NEW_KEY = "the-old-key-of-the-provider", "the-new-key-of-the-provider"
# The program with its .env in another folder than the checkout.
PROGRAM = """
import sys, pathlib
from app.core import locations
locations.CHECKOUT = pathlib.Path(sys.argv[1])
from app.cli import main
main(["serve"])
"""
MODEL_LINES = """
[models.{name}]
[[models.{name}.routes]]
provider = "gemini"
base_url = "{url}"
model = "{model}"
key = "BANANA_KEY"
"""


@dataclass
class Provider:
    """A provider that accepts the keys in `accepted`, and takes a moment for each image."""

    accepted: list[str] = field(default_factory=lambda: [OLD_KEY])

    def answer(self, seen: Seen) -> Reply:
        key = seen.headers.get("x-goog-api-key", "")
        stand_in = GeminiStandIn(api_key=key if key in self.accepted else self.accepted[0])
        return replace(stand_in.answer(seen), delay_seconds=0.25)


@dataclass
class Server:
    """A running server, whose settings are in files of `folder`."""

    folder: Path
    url: str
    provider_url: str
    pid: int
    size: int
    key: Key
    answers: Counter[int | str] = field(default_factory=Counter)

    def configure(self, *models: str, key: str = OLD_KEY, more: str = "", **settings: str) -> None:
        """Writes the files as an operator does, who has not asked for a reload yet."""
        configure(self.folder, self.provider_url, *models, key=key, more=more, **settings)

    async def reload(self) -> "CompletedProcess[str]":
        """The command, when it has ended."""
        return await asyncio.to_thread(nanobanana_in_here, self.folder, "reload")

    @property
    def workers(self) -> set[int]:
        return set(Workers(self.pid, port=0, size=2).workers())

    async def generate(self, client: httpx2.AsyncClient, model: str = "banana") -> int:
        body = {"prompt": "A cute banana", "model": model}
        return (await client.post("/v1/generate", json=body, headers=self.key.headers)).status_code

    async def status_on_new_connection(self, model: str) -> int:
        async with httpx2.AsyncClient(base_url=self.url, timeout=60) as client:
            return await self.generate(client, model)

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Callers that keep their connections and try nothing twice; what they got is in `answers`."""
        is_over = asyncio.Event()

        async def call() -> None:
            async with httpx2.AsyncClient(base_url=self.url, timeout=60) as client:
                while not is_over.is_set():
                    try:
                        self.answers[await self.generate(client)] += 1
                    except httpx2.HTTPError as error:
                        self.answers[repr(error)] += 1
                    await asyncio.sleep(0.05)

        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        try:
            await self._until_answered(CALLERS)
            yield
            await self._until_answered(3 * CALLERS)
        finally:
            is_over.set()
            await asyncio.gather(*callers)

    async def _until_answered(self, more: int) -> None:
        before = self.answers.total()
        for _ in looks():
            if self.answers.total() >= before + more:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("no call is answered")


def configure(folder: Path, provider_url: str, *models: str, key: str, more: str, **settings: str) -> None:
    lines = [MODEL_LINES.format(name=name, url=provider_url, model=MODEL) for name in models or ("banana",)]
    (folder / "models.toml").write_text('default = "banana"\n' + "".join(lines) + more)
    (folder / "key").write_text(key)
    given = {"MODELS_FILE": "models.toml", "BANANA_KEY_FILE": "key", **settings}
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))


@asynccontextmanager
async def started(
    folder: Path, provider: Provider, account: Account, workers: int, **settings: str
) -> AsyncIterator[Server]:
    launch, port = Launch((sys.executable, "-c", PROGRAM, str(folder))), free_port()
    async with serving(provider.answer) as provider_url:
        configure(folder, provider_url, key=OLD_KEY, more="")
        key = await account.create_key()
        running = server_process(folder, launch, WORKERS=str(workers), PORT=str(port), **settings)
        process, _ = await asyncio.to_thread(running.__enter__)  # it tries the provider, which runs here
        try:
            yield Server(folder, f"http://127.0.0.1:{port}", provider_url, process.pid, workers, key)
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.fixture
def common(database_url: str, redis_url: str) -> dict[str, str]:
    shared = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "REDIS_TIMEOUT_MS": "5000", "SECRET_KEY": SECRET}
    return {**shared, "GENERATE_LIMIT_PER_KEY": "1000/second", "GENERATE_LIMIT_PER_ACCOUNT": "1000/second"}


@pytest.mark.parametrize(("workers", "reloads"), [(1, 2)])  # the second is by a supervisor, as with several workers
async def test_a_new_model_and_a_new_key_of_the_provider_are_taken_on_and_no_call_fails(
    tmp_path: Path, common: dict[str, str], account: Account, workers: int, reloads: int
) -> None:
    provider = Provider()
    async with started(tmp_path, provider, account, workers, **common) as server:
        async with server.traffic():
            for model, key in (("apple", NEW_KEY), ("cherry", OLD_KEY))[:reloads]:
                assert await server.status_on_new_connection(model) == 404
                provider.accepted = [OLD_KEY, NEW_KEY]
                server.configure("banana", model, key=key)
                done = await server.reload()
                assert (done.returncode, done.stderr) == (0, "")
                assert done.stdout.endswith("All workers run the new settings.\n")
                provider.accepted = [key]  # no worker, and no request under way, uses the other any more
                assert {await server.status_on_new_connection(model) for _ in range(6)} == {200}
        assert set(server.answers) == {200}, server.answers


async def test_settings_that_cannot_be_used_change_nothing(
    tmp_path: Path, common: dict[str, str], account: Account
) -> None:
    async with started(tmp_path, Provider(), account, 2, **common) as server:
        async with server.traffic():
            before = server.workers
            for refused, sentence in (
                ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
                ({"HOST": "127.0.0.2"}, "HOST cannot be changed by a reload: restart the server."),
                ({"more": "colour = 1\n"}, "MODELS_FILE, line 9: models.banana.routes.1.colour is not a known field."),
            ):
                server.configure(**refused)
                done = await server.reload()
                assert (done.returncode, done.stderr) == (1, f"nanobanana: {sentence}\n")
            assert server.workers == before
        assert set(server.answers) == {200}
        # The file is still wrong: a worker that dies comes back with the models that the others have.
        os.kill(min(before), signal.SIGKILL)
        for _ in looks():
            if len(server.workers) == 2 and server.workers != before:
                break
            await asyncio.sleep(0.05)
        assert {await server.status_on_new_connection("banana") for _ in range(6)} == {200}


async def test_a_worker_or_a_server_that_is_killed_in_the_middle_ends_the_reload_and_loses_no_setting(
    tmp_path: Path, common: dict[str, str], account: Account
) -> None:
    async with started(tmp_path, Provider(), account, 2, **common) as server:
        async with server.traffic():
            before = server.workers
            server.configure("banana", "apple")
            os.kill(await _new_worker(server, before, reload := asyncio.create_task(server.reload())), signal.SIGKILL)
            refused = await reload
            assert refused.returncode == 1
            assert (
                "A worker cannot start with the new settings; the log has the reason. 0 of 2 workers" in refused.stderr
            )
            assert server.workers == before
            assert await server.status_on_new_connection("apple") == 404
        assert set(server.answers) == {200}
        await _new_worker(server, before, reload := asyncio.create_task(server.reload()))
        os.kill(server.pid, signal.SIGKILL)
        assert "has ended meanwhile" in (await reload).stderr
    again = await server.reload()
    assert (again.returncode, again.stderr) == (1, f"nanobanana: No server of this machine runs on {tmp_path}.\n")


async def _new_worker(server: Server, before: set[int], reload: "asyncio.Task[CompletedProcess[str]]") -> int:
    """The worker that is started for the reload."""
    for _ in looks():
        if new := server.workers - before:
            return new.pop()
        assert not reload.done()
        await asyncio.sleep(0.01)
    raise AssertionError("no worker is started")
