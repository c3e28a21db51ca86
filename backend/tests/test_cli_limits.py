"""`nanobanana limits`: its input, its output, and that a running server applies the limits."""

import asyncio
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from app.generations.callers import KNOWN_SECONDS
from tests.conftest import Start
from tests.harness import Account, Clock, Key, everything_stored, generate, new_email
from tests.test_cli import nanobanana, nanobanana_in_here

UNKNOWN_KEY = "key_28fm63cjp43w44255s68"


@pytest.fixture
async def key(account: Account) -> Key:
    """A key without calls."""
    return await account.create_key()


async def _run(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = Path("of no use")
    return await asyncio.to_thread(nanobanana_in_here, folder, "limits", *arguments, DATABASE_URL=database_url)


async def _assert_refused(database_url: str, sentence: str, *arguments: str) -> None:
    done = await _run(database_url, *arguments)
    assert (done.returncode, done.stdout) == (1, ""), arguments
    assert done.stderr.startswith(f"nanobanana: {sentence}")
    assert done.stderr.count("\n") == 1


async def _told(client: httpx2.AsyncClient, key: Key) -> str:
    policy: str = (await generate(client, key, size="0x0")).headers["ratelimit-policy"]
    return policy


async def test_a_running_server_applies_limits_that_are_set_and_removed(
    start: Start, externals: dict[str, Any], account: Account, database_url: str, tmp_path: Path
) -> None:
    clock = externals["cache_clock"] = Clock(1_000_000)
    client, key = await start(generate_limit_per_key="50/hour"), await account.create_key()
    assert await _told(client, key) == '"key";q=50;w=3600'
    words = ("limits", "set", key.id, "--generate", "1200/minute")
    done = await asyncio.to_thread(nanobanana, tmp_path, *words, DATABASE_URL=database_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The limits are set.\n", "")
    clock.now += KNOWN_SECONDS
    assert await _told(client, key) == '"key";q=1200;w=60'
    assert (await _run(database_url, "set", key.id, "--generate", "default")).stdout == "The limits are set.\n"
    clock.now += KNOWN_SECONDS
    assert await _told(client, key) == '"key";q=50;w=3600'


async def test_limits_that_were_set_are_shown(database_url: str, account: Account, key: Key) -> None:
    of_account = ["--generate", "9/day", "--generate-per-key", "8/hour", "--concurrency", "7"]
    assert (await _run(database_url, "set", account.email.upper(), *of_account)).returncode == 0
    assert (await _run(database_url, "set", account.email, "--generate", "default")).returncode == 0
    assert (await _run(database_url, "set", key.id, "--concurrency", "3")).returncode == 0
    shown = await _run(database_url, "show", account.email.title())
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        f"{account.email}: generate_limit default (3000/minute), generate_limit_per_key 8/hour, generate_concurrency 7",
        f"{key.id}: generate_limit default (8/hour), generate_concurrency 3",
    ]
    assert (await _run(database_url, "show", key.id)).stdout.splitlines() == shown.stdout.splitlines()[1:]


async def test_wrong_input_is_one_sentence_and_changes_nothing(
    database_url: str, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    before, no_limit = await everything_stored(database), "A limit must look like 600/minute"
    for owner in (account.email, key.id):
        refused = partial(_assert_refused, database_url)
        for text in ("600", "0/minute", "1e3", "-1/minute", ""):
            await refused(no_limit, "set", owner, "--concurrency", "5", "--generate", text)
        for text in ("0", "-1", "1e3", "1000001", "many"):
            await refused("The concurrency must be a number from 1 to", "set", owner, "--concurrency", text)
        await refused("Name a limit to set: --generate, --generate-per-key or --concurrency.", "set", owner)
    of_accounts = "--generate-per-key is for accounts; the limit of one key is --generate."
    await refused(of_accounts, "set", key.id, "--generate", "9/day", "--generate-per-key", "9/day")
    for unknown in (UNKNOWN_KEY, new_email(), key.raw, "nobody", "'; drop table users --"):
        await refused("There is no such key or account.", "set", unknown, "--generate", "9/day")
        await refused("There is no such key or account.", "show", unknown)
    assert await everything_stored(database) == before


async def test_a_database_that_cannot_be_reached_is_one_sentence() -> None:
    url = "postgresql+asyncpg://u:hunter2@127.0.0.1:1/n"
    for arguments in (["set", UNKNOWN_KEY, "--generate", "9/day"], ["show", "ada@example.com"]):
        await _assert_refused(url, "The database of DATABASE_URL cannot be reached", *arguments)
