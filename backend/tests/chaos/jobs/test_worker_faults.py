"""Jobs that kill, hold up or outlive their workers."""

import asyncio

import pytest
from tests.chaos.jobs.acceptor import Acceptor
from tests.chaos.jobs.conftest import Employ
from tests.chaos.jobs.hands import PROGRAM
from tests.chaos.jobs.provider import LAVISH, PLAIN
from tests.chaos.jobs.trail import images_of, wrong_steps
from tests.chaos.jobs.yard import BUCKET, LOOK_SECONDS, Yard, execute
from tests.harness import Account, looks

_STATUS = "select status, error, attempts from generations where request_id = $1"


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


@pytest.mark.parametrize(
    ("model", "calls", "end"),
    [(LAVISH, 3, ("failed", "attempts_exhausted", 3)), (PLAIN, 1, ("lost", "lost", 1))],
    ids=["may be bought again", "is bought once"],
)
async def test_a_job_that_kills_its_worker_is_given_up(
    yard: Yard, employ: Employ, accepting: Acceptor, account: Account, model: str, calls: int, end: tuple[str, str, int]
) -> None:
    key, prompt = await account.create_key(), f"kills {model}"
    yard.provider.gates[prompt] = asyncio.Event()
    request_id = await accepting.accept(account, key, prompt, model=model)
    async with employ() as workers:
        for n in range(1, calls + 1):
            await yard.provider.until_asked(prompt, times=n)
            workers.kill(workers.running[0])
            workers.start()
        assert await ended(yard, request_id) == end
    assert yard.provider.calls[prompt] == calls
    assert await yard.miscounted([key]) == []
    assert await yard.until_swept() == []


async def test_a_job_that_hangs_ends_at_its_deadline(
    yard: Yard, employ: Employ, accepting: Acceptor, account: Account
) -> None:
    key, prompt = await account.create_key(), "hangs"
    yard.provider.gates[prompt] = asyncio.Event()
    request_id = await accepting.accept(account, key, prompt)
    async with employ():
        assert await ended(yard, request_id) == ("failed", "provider_timeout", 1)
    assert yard.provider.calls[prompt] == 1
    assert await yard.miscounted([key]) == []


@pytest.mark.parametrize(
    ("model", "is_sent", "calls", "status"),
    [(PLAIN, False, 1, "delivered"), (PLAIN, True, 1, "lost"), (LAVISH, True, 2, "delivered")],
    ids=["before it is sent", "when it may be paid", "when it is bought again"],
)
async def test_a_worker_that_freezes_past_its_lease_settles_nothing_and_keeps_what_another_one_delivered(
    yard: Yard,
    employ: Employ,
    accepting: Acceptor,
    account: Account,
    model: str,
    is_sent: bool,
    calls: int,
    status: str,
) -> None:
    key, prompt = await account.create_key(), f"frozen {model} {is_sent}"
    gate = yard.provider.gates[prompt] = asyncio.Event()
    request_id = await accepting.accept(account, key, prompt, model=model)
    program = PROGRAM if is_sent else (*PROGRAM, "sends-late")
    async with employ(program=program) as workers:
        [first] = workers.running
        if is_sent:
            await yard.provider.until_asked(prompt)
        else:
            await until(yard, request_id, "status = 'processing'")
        workers.freeze(first)
        del yard.provider.gates[prompt]
        async with employ():
            assert (await ended(yard, request_id))[0] == status
        kept = dict(yard.bucket.buckets[BUCKET])
        gate.set()
        workers.thaw(first)
        assert await workers.stop(first) == 0
    assert yard.provider.calls[prompt] == calls
    assert (await ended(yard, request_id))[0] == status
    assert yard.bucket.buckets[BUCKET] == kept
    connection = await yard.own.connect()
    assert list(wrong_steps(await images_of(connection, [key.id]))) == []
    await connection.close()
    assert await yard.miscounted([key]) == []
