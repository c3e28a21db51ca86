"""Jobs that kill, hold up or outlive their workers."""

import asyncio
import signal
from typing import NamedTuple

import pytest
from tests.chaos.jobs.conftest import Employ
from tests.chaos.jobs.hands import PROGRAM, mutant
from tests.chaos.jobs.provider import LAVISH, PLAIN
from tests.chaos.jobs.trail import images_of, wrong_steps
from tests.chaos.jobs.yard import BUCKET, LOOK_SECONDS, Yard, execute
from tests.harness import Account, Key, generate, looks

_STATUS = "select status, error, attempts from generations where request_id = $1"


async def accepted(yard: Yard, key: Key, prompt: str, **body: object) -> str:
    """The id of a job."""
    answer = await generate(yard.client, key, prompt=prompt, **{"async": True, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def ended(yard: Yard, request_id: str) -> tuple[str, str | None, int]:
    """Status, error and attempts of a job once it has ended."""
    for _ in looks():
        [row] = await execute(yard.own, _STATUS, request_id)
        if row["status"] not in {"queued", "processing"}:
            return row["status"], row["error"], row["attempts"]
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(f"it is {row['status']}, in its attempt {row['attempts']}")


async def until(yard: Yard, request_id: str, condition: str) -> None:
    """Returns once this is true of the job's row."""
    for _ in looks():
        if await execute(yard.own, f"select from generations where request_id = $1 and {condition}", request_id):
            return
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError(condition)


class Poison(NamedTuple):
    """A job that kills its worker: how often it is bought, and how it ends: status, error and attempts."""

    model: str
    calls: int
    end: tuple[str, str, int]


@pytest.mark.parametrize(
    "poison",
    [Poison(LAVISH, 3, ("failed", "attempts_exhausted", 3)), Poison(PLAIN, 1, ("lost", "lost", 1))],
    ids=["may be bought again", "is bought once"],
)
async def test_a_job_that_kills_its_worker_is_given_up(
    yard: Yard, employ: Employ, account: Account, poison: Poison
) -> None:
    key, prompt = await account.create_key(), f"kills {poison.model}"
    yard.provider.gates[prompt] = asyncio.Event()
    request_id = await accepted(yard, key, prompt, model=poison.model)
    async with employ() as workers:
        for n in range(1, poison.calls + 1):
            await yard.provider.until_asked(prompt, times=n)
            workers.kill(workers.running[0])
            workers.start()
        assert await ended(yard, request_id) == poison.end
    assert yard.provider.calls[prompt] == poison.calls
    assert await yard.miscounted(account, [key]) == []


async def test_a_job_that_hangs_ends_at_its_deadline(yard: Yard, employ: Employ, account: Account) -> None:
    key, prompt = await account.create_key(), "hangs"
    yard.provider.gates[prompt] = asyncio.Event()
    request_id = await accepted(yard, key, prompt)
    async with employ():
        assert await ended(yard, request_id) == ("failed", "provider_timeout", 1)
    assert yard.provider.calls[prompt] == 1
    assert await yard.miscounted(account, [key]) == []


class Frost(NamedTuple):
    """When a worker freezes, how often its job is bought, and what becomes of it."""

    model: str
    is_sent: bool
    calls: int
    status: str


@pytest.mark.parametrize(
    "frost",
    [
        Frost(PLAIN, is_sent=False, calls=1, status="delivered"),
        Frost(PLAIN, is_sent=True, calls=1, status="lost"),
        Frost(LAVISH, is_sent=True, calls=2, status="delivered"),
    ],
    ids=["before it is sent", "when it may be paid", "when it is bought again"],
)
async def test_a_worker_that_freezes_past_its_lease_settles_nothing_and_leaves_what_another_one_keeps(
    yard: Yard, employ: Employ, account: Account, frost: Frost
) -> None:
    key, prompt = await account.create_key(), f"frozen {frost.model} {frost.is_sent}"
    gate = yard.provider.gates[prompt] = asyncio.Event()
    request_id = await accepted(yard, key, prompt, model=frost.model)
    async with employ(program=PROGRAM if frost.is_sent else mutant("late-to-send")) as workers:
        [first] = workers.running
        if frost.is_sent:
            await yard.provider.until_asked(prompt)
        else:
            await until(yard, request_id, "status = 'processing'")
        workers.freeze(first)
        del yard.provider.gates[prompt]
        async with employ():
            assert (await ended(yard, request_id))[0] == frost.status
        kept = dict(yard.bucket.buckets[BUCKET])
        gate.set()
        workers.thaw(first)
        assert await workers.stop(first) == 128 + signal.SIGTERM
    assert yard.provider.calls[prompt] == frost.calls
    assert (await ended(yard, request_id))[0] == frost.status
    assert yard.bucket.buckets[BUCKET] == kept
    connection = await yard.own.connect()
    assert list(wrong_steps(await images_of(connection, [key.id]))) == []
    await connection.close()
    assert await yard.miscounted(account, [key]) == []
