"""The commands of docs/backup.md, as they stand there: what was acknowledged is restored, and nothing counts twice."""

import asyncio
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest
from app.core.embedded import embedded_postgres, running_url
from app.core.postgres_backup import dump
from app.core.postgres_programs import binaries_of_the_wheel
from app.generations import verify
from sqlalchemy.engine import make_url
from tests.docs.settings_pages import ROOT
from tests.harness import Account, Key, fresh_database, generate, looks, sign_up
from tests.standins.gemini import GeminiStandIn, slow
from tests.standins.wire import serving
from tests.test_cli import SECRET, environment, nanobanana_in_here
from tests.test_cli import serving as server_process

BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "backup.md").read_text(), re.DOTALL)
BACK_UP, RESTORE, PROVE, VERIFY, BACK_UP_OWN, RESTORE_OWN = BLOCKS
PROVIDER_KEY = "a-key-of-the-provider"
IMAGES_BEFORE, CALLERS, CALLS_MAX = 30, 2, 8
"""So that however long the backup takes, most of its images are older: else the orphans are not deleted."""


def run(block: str, folder: Path, data_dir: Path, **settings: str) -> None:
    """Runs the commands in the folder, with our programs and those of PostgreSQL on the PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(binaries_of_the_wheel()), os.environ["PATH"]])
    settings = {**environment(data_dir, **settings), "PATH": path}
    done = subprocess.run(
        ["bash", "-euc", block], cwd=folder, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_data_dir_the_commands_copy_what_a_checkout_keeps(tmp_path: Path) -> None:
    programs, checkout = tmp_path / "programs", tmp_path / "checkout"
    (checkout / ".data" / "pictures").mkdir(parents=True)
    (checkout / ".data" / "secret_key").write_text(SECRET)
    programs.mkdir()
    (programs / "nanobanana").symlink_to(str(shutil.which("true")))
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    for block in (BACK_UP, "rm -r .data", RESTORE):
        subprocess.run(["bash", "-euc", block], cwd=checkout, env={"PATH": path}, check=True)
    assert (checkout / ".data" / "secret_key").read_text() == SECRET
    assert (checkout / ".data" / "pictures").is_dir()


@asynccontextmanager
async def server(data_dir: Path, **settings: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server on this DATA_DIR, with its own PostgreSQL."""
    await asyncio.to_thread(data_dir.mkdir, exist_ok=True)
    running = server_process(data_dir, **settings)
    _, said = await asyncio.to_thread(running.__enter__)  # it tries the provider, which runs in this process
    try:
        url = said.partition("NanoBanana is at ")[2].split()[0]
        async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
            yield client
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def _counted(client: httpx2.AsyncClient, account: Account) -> int:
    usage = (await client.get("/v1/usage", headers=account.headers)).json()
    return sum(each["images"] for each in usage)


async def _until_drawing(provider: GeminiStandIn) -> None:
    for _ in looks():
        if any(each.method == "POST" for each in provider.seen):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is not drawn")


async def test_a_backup_taken_under_traffic_restores_what_was_acknowledged_and_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_pause", lambda _: asyncio.sleep(0))
    here, there, provider = tmp_path / "here", tmp_path / "there", GeminiStandIn(api_key=PROVIDER_KEY)
    gate, acknowledged = asyncio.Event(), list[str]()
    async with serving(provider.answer) as url:
        settings = {"IMAGE_PROVIDER": "gemini", "GEMINI_API_KEY": PROVIDER_KEY, "GEMINI_BASE_URL": url}
        async with server(here, **settings) as client:
            account = await sign_up(client)
            key = await account.create_key()
            first = await asyncio.gather(*(generate(client, key) for _ in range(IMAGES_BEFORE)))
            acknowledged += [each.json()["id"] for each in first]
            in_flight = await _start_one_in_flight(client, key, provider, gate)
            async with _traffic(client, key, acknowledged):
                before = list(acknowledged)
                await asyncio.to_thread(run, BACK_UP, tmp_path, here)
            gate.set()
            assert (await in_flight).status_code == 200
        await asyncio.to_thread(run, RESTORE, tmp_path, there)
        async with server(there, **settings) as client:
            restored = await client.get("/v1/auth/me", headers=account.headers)
            assert (restored.status_code, restored.json()["email"]) == (200, account.email)
            served = [(await client.get(f"/v1/images/{each}.png")).status_code for each in before]
            assert set(served) == {200}
            counted = await _counted(client, account)
            await _end_leases(there)
            assert (await _ask_for_one_in_flight(client, key)).status_code == 200
            assert await _counted(client, account) == counted + 1
            await asyncio.to_thread(run, PROVE, tmp_path, there)
            await asyncio.to_thread(_verify_images, there)


@pytest.mark.parametrize("there", ["a file", "a link"])
def test_a_backup_is_a_new_file_whatever_has_the_name_that_it_begins_with(tmp_path: Path, there: str) -> None:
    target, theirs = tmp_path / "today.dump", tmp_path / "theirs"
    theirs.touch(0o666)
    begun = target.with_name("today.dump.partial")
    begun.symlink_to(theirs) if there == "a link" else begun.hardlink_to(theirs)
    with embedded_postgres(tmp_path / "data") as url:
        dump(url, target)
    assert theirs.read_bytes() == b""
    found = target.lstat()
    assert (stat.S_ISREG(found.st_mode), stat.S_IMODE(found.st_mode), found.st_nlink) == (True, 0o600, 1)
    assert target.read_bytes().startswith(b"PGDMP")


@asynccontextmanager
async def _traffic(client: httpx2.AsyncClient, key: Key, acknowledged: list[str]) -> AsyncIterator[None]:
    """Callers that add the ids of what they were given."""
    is_over = asyncio.Event()

    async def call() -> None:
        for _ in range(CALLS_MAX):
            if is_over.is_set():
                return
            answer = await generate(client, key)
            assert answer.status_code == 200
            acknowledged.append(answer.json()["id"])
            await asyncio.sleep(0.5)

    callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
    try:
        yield
    finally:
        is_over.set()
        await asyncio.gather(*callers)


async def _start_one_in_flight(
    client: httpx2.AsyncClient, key: Key, provider: GeminiStandIn, gate: asyncio.Event
) -> "asyncio.Task[httpx2.Response]":
    """A request that the provider is drawing for, until the gate opens."""
    provider.seen.clear()
    provider.faults.append(slow(gate))
    request = asyncio.create_task(_ask_for_one_in_flight(client, key))
    await _until_drawing(provider)
    return request


async def _ask_for_one_in_flight(client: httpx2.AsyncClient, key: Key) -> httpx2.Response:
    headers = {**key.headers, "Idempotency-Key": "in-flight"}
    return await client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=headers)


async def _end_leases(data_dir: Path) -> None:
    """Some minutes go by."""
    database = await _connect(data_dir)
    await database.execute("update generations set lease_until = now() where lease_until is not null")
    await database.execute("update claims set lease_until = now() where lease_until is not null")
    await database.close()


def _verify_images(data_dir: Path) -> None:
    """Runs these commands, an hour later."""
    for file in (data_dir / "pictures").rglob("gen_*"):
        os.utime(file, (0, 0))
    for line in VERIFY.splitlines():
        done = nanobanana_in_here(data_dir, *shlex.split(line)[1:])
        assert done.returncode == 0, done.stdout + done.stderr
    assert "0 missing, 0 damaged, 0 orphaned" in done.stdout


async def _connect(data_dir: Path) -> asyncpg.Connection:
    url = make_url(running_url(data_dir)).set(drivername="postgresql")
    return await asyncpg.connect(url.render_as_string(hide_password=False))


async def test_a_dump_of_another_postgresql_restores_into_an_empty_database(
    tmp_path: Path, server_url: str, database_url: str, account: Account, client: httpx2.AsyncClient
) -> None:
    assert (await generate(client, await account.create_key())).status_code == 200
    (tmp_path / "pictures").mkdir()

    def follow() -> None:
        with fresh_database(server_url) as empty:
            for block, url in ((BACK_UP_OWN, database_url), (RESTORE_OWN, empty), (PROVE, empty)):
                run(block, tmp_path, tmp_path, DATABASE_URL=url.replace("+asyncpg", ""), SECRET_KEY=SECRET)

    await asyncio.to_thread(follow)
