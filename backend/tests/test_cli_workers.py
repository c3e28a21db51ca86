"""`nanobanana serve` with several workers and a Redis: its conditions for a start, and metrics over all workers."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from app.cli import main
from click.testing import CliRunner
from tests.features.scraped import METRICS_TOKEN, read
from tests.harness import Account, Key, looks
from tests.test_cli import WAIT_SECONDS, environment, nanobanana_in_here, serving

UNREACHABLE = "redis://ada:hunter2@127.0.0.1:1/0?password=hunter3"
UNKNOWN = "nb_live_" + "0" * 32
PROMPT = "a prompt that nobody else has"


def test_workers_without_a_redis_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    done = nanobanana_in_here(tmp_path / "data", "serve", WORKERS="2", REDIS_URL="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nanobanana: WORKERS is 2, but each worker would hold the limits by itself. ")
    assert done.stderr.endswith("Set REDIS_URL to a Redis that they share, or WORKERS=1.\n")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data" / "postgres").exists()


@pytest.mark.parametrize(
    "url", ["redis://u:hunter2@h:port", "redis://u:hunter2@h?max_connections=hunter3", "redis://h?hunter2=hunter3"]
)
def test_an_invalid_redis_url_is_one_sentence_that_does_not_repeat_it(tmp_path: Path, url: str) -> None:
    settings = environment(tmp_path, REDIS_URL=url, DATABASE_URL="postgresql+asyncpg://u:hunter2@127.0.0.1:1/n")
    done = CliRunner().invoke(main, ["serve"], env=settings)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("nanobanana: REDIS_URL ")
    assert done.stderr.count("\n") == 1
    assert "hunter" not in done.stderr


async def test_a_redis_that_cannot_be_reached_is_a_warning_and_the_server_starts(
    account: Account, database_url: str, tmp_path: Path
) -> None:
    key = await account.create_key()
    with serving(tmp_path, DATABASE_URL=database_url, REDIS_URL=UNREACHABLE) as (_, said):
        async with httpx2.AsyncClient(base_url=_url(said), timeout=WAIT_SECONDS) as client:
            assert (await client.get("/ready")).status_code == 200
            answer = await client.post("/v1/generate", json={"prompt": PROMPT}, headers=key.headers)
        assert (answer.status_code, answer.headers["ratelimit"]) == (200, '"key";r=599;t=1')
    lines = (tmp_path / "stderr").read_text().splitlines()
    sentence = (
        "The Redis of REDIS_URL cannot be used (nobody listens on its host and port). "
        "Until it can, each process limits by itself."
    )
    assert [line for line in lines if not line.startswith("{")] == [sentence]
    assert len([line for line in lines if "limits_on_their_own" in line]) == 1
    assert not [line for line in lines if "hunter" in line]


async def test_metrics_are_the_sums_of_all_workers_whichever_answers(
    account: Account, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "REDIS_TIMEOUT_MS": "5000", "WORKERS": "2"}
    more = {"METRICS_TOKEN": METRICS_TOKEN, "UNKNOWN_KEY_LIMIT_PER_IP": "1/day", "TMPDIR": str(tmp_path)}
    key = await account.create_key()
    with (
        serving(tmp_path, **settings, **more) as (process, said),
        httpx2.Client(base_url=_url(said), timeout=WAIT_SECONDS) as client,
    ):
        assert _generate(client, key.raw) == 200
        workers = _until_they_count(process.pid, tmp_path)
        counted: Counter[int] = Counter()
        for worker in workers:
            with _frozen(worker):
                counted.update(_generate(client, UNKNOWN) for _ in range(5))
        assert counted == {401: 1, 429: 9}
        _until_refused(client, 9)
        for worker in workers:
            with _frozen(worker):
                text = _get(client, "/metrics", METRICS_TOKEN).text
            assert _refused(text) == 9
            assert not [word for word in _private(account, key) if word in text]
    assert _counters(tmp_path) == []


def _url(said: str) -> str:
    return said.partition("NanoBanana is at ")[2].split()[0]


def _private(account: Account, key: Key) -> list[str]:
    return [account.email, account.id, account.token, key.id, key.raw, UNKNOWN, PROMPT, METRICS_TOKEN, "127.0.0.1"]


def _get(client: httpx2.Client, path: str, credential: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {credential}", "Connection": "close"}
    return client.get(path, headers=headers)


def _generate(client: httpx2.Client, raw: str) -> int:
    """The status, over a connection of its own, which any worker may accept."""
    headers = {"Authorization": f"Bearer {raw}", "Connection": "close"}
    return client.post("/v1/generate", json={"prompt": PROMPT}, headers=headers).status_code


def _refused(text: str) -> int:
    return int(read(text)["nanobanana_limit_refusals"].get((("limit", "unknown-key-ip"), ("mode", "enforce")), 0))


def _until_refused(client: httpx2.Client, count: int) -> None:
    """Returns once both workers have shown what they counted, which they do once a second."""
    for _ in looks():
        if _refused(_get(client, "/metrics", METRICS_TOKEN).text) == count:
            return
        time.sleep(0.1)
    raise AssertionError("it is not counted")


def _until_they_count(parent: int, folder: Path) -> list[int]:
    """The pids of the two workers, once both have written counters."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        counting = [int(each) for each in children if f"counter_{each}.db" in _counters(folder)]
        if len(counting) == 2:
            return counting
        time.sleep(0.01)
    raise AssertionError((folder / "stderr").read_text()[-2000:])


def _counters(folder: Path) -> list[str]:
    return [each.name for each in folder.glob("nanobanana-metrics-*/*")]


@contextmanager
def _frozen(worker: int) -> Iterator[None]:
    """Stops the worker, so that only the other one can answer."""
    os.kill(worker, signal.SIGSTOP)
    try:
        while Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        yield
    finally:
        os.kill(worker, signal.SIGCONT)
