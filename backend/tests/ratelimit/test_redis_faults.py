"""The limiter in Redis when its callers are cancelled, when Redis is late, and after unexpected errors."""

import asyncio
from contextlib import suppress

import pytest
from app.ratelimit import Limit, Slot, Take, TakeResult
from app.ratelimit.batches import RedisUnavailable
from app.ratelimit.redis import RedisLimiter
from redis.asyncio import Redis
from tests.harness import looks
from tests.ratelimit.sync_limiter import PATIENCE_SECONDS, NewRedisLimiter
from tests.ratelimit.test_redis import LIMIT, counts, remaining, take
from tests.redis_server import RedisServer

SHORT_SECONDS = 0.2


async def run_tasks() -> None:
    """Lets every task run until it waits for Redis."""
    for _ in range(20):
        await asyncio.sleep(0)


async def warmed_up(limiter: RedisLimiter) -> RedisLimiter:
    """The limiter, connected and with the lead of the clock of Redis known."""
    for number in range(100):
        with suppress(RedisUnavailable):
            await limiter.connect()
            await take(limiter, f"warm-{number}", group="warm")
            return limiter
    raise AssertionError("Redis never decided")


async def until_scripts_started(inspector: Redis, scripts: int) -> None:
    """Returns once Redis has started so many scripts."""
    for _ in looks():
        if (await counts(inspector))[0] >= scripts:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("Redis never started them")


async def test_a_script_that_redis_starts_after_the_deadline_does_nothing(
    server: RedisServer, inspector: Redis, new_limiter: NewRedisLimiter
) -> None:
    unit, slot = Take("key", "ada", LIMIT), Slot("ada", 1, 30, "late")
    others, limiter = new_limiter(), await warmed_up(new_limiter(timeout_seconds=SHORT_SECONDS))
    await take(others)
    scripts, _reads = await counts(inspector)
    server.freeze()
    for late in (limiter.take([unit], group="ada", slot=slot), limiter.give_back([unit], group="ada")):
        with pytest.raises(RedisUnavailable):
            await late
    await asyncio.sleep(SHORT_SECONDS)  # the deadline may be up to one round trip later than the timeout
    server.thaw()
    await until_scripts_started(inspector, scripts + 2)
    result = await others.take([unit], group="ada", slot=slot._replace(id="in time"))
    assert result.allowed
    assert remaining([result]) == [3]


async def test_calls_that_wait_behind_a_failed_round_trip_fail_with_it(
    server: RedisServer, inspector: Redis, new_limiter: NewRedisLimiter
) -> None:
    limiter = await warmed_up(new_limiter(timeout_seconds=SHORT_SECONDS))
    scripts, _reads = await counts(inspector)
    server.freeze()
    calls = []
    for _ in range(3):
        calls.append(asyncio.create_task(take(limiter)))
        await run_tasks()
    results = await asyncio.gather(*calls, return_exceptions=True)
    server.thaw()
    assert [type(each) for each in results] == [RedisUnavailable] * 3
    await until_scripts_started(inspector, scripts + 1)
    assert (await counts(inspector))[0] == scripts + 1


async def test_late_replies_are_not_taken_for_those_of_other_calls(
    server: RedisServer, new_limiter: NewRedisLimiter
) -> None:
    limiter = await warmed_up(new_limiter(timeout_seconds=SHORT_SECONDS))
    for attempt in range(3):
        server.freeze()
        with pytest.raises(RedisUnavailable):
            await asyncio.gather(*(take(limiter, f"{attempt}-{number}") for number in range(5)))
        server.thaw()
        await warmed_up(limiter)
    other = new_limiter()
    for count in range(1, 20):
        [decision] = (await take(other, f"caller-{count}", limit=Limit(count, 60), group=f"group-{count}")).decisions
        assert decision.remaining == count - 1


async def test_a_connection_that_redis_closed_is_replaced_without_an_error(
    server: RedisServer, new_limiter: NewRedisLimiter
) -> None:
    limiter = new_limiter()
    for left in (4, 3, 2):
        server.command("CLIENT", "KILL", "TYPE", "normal")
        server.command("PING")
        await run_tasks()
        assert remaining([await take(limiter)]) == [left]


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("sent", [True, False], ids=["after it was sent", "before it was sent"])
async def test_cancelling_a_call_does_not_affect_the_others(
    server: RedisServer, new_limiter: NewRedisLimiter, *, index: int, sent: bool
) -> None:
    limiter = await warmed_up(new_limiter())
    server.freeze()
    calls = [asyncio.create_task(take(limiter)) for _ in range(3)]
    if sent:
        await run_tasks()
    else:
        await asyncio.sleep(0)
    calls[index].cancel()
    server.thaw()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results.pop(index), asyncio.CancelledError)
    assert [each for each in results if isinstance(each, BaseException) or not each.allowed] == []
    assert (await take(limiter, "bob")).allowed


async def test_a_call_whose_subject_cannot_be_encoded_does_not_affect_the_others(new_limiter: NewRedisLimiter) -> None:
    limiter = new_limiter()
    invalid = [Take("key", "ada", LIMIT), Take("key", "\ud800", LIMIT)]
    calls = take(limiter), limiter.take(invalid, group="ada"), take(limiter), take(limiter, "bob")
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], UnicodeEncodeError)
    assert remaining([each for each in results if isinstance(each, TakeResult)]) == [4, 3, 4]


async def test_no_call_hangs_after_an_unexpected_error_of_the_client(
    new_limiter: NewRedisLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter, gate = await warmed_up(new_limiter()), asyncio.Event()

    async def broken(*_arguments: object, **_options: object) -> None:
        await gate.wait()
        raise RuntimeError("unexpected")

    with monkeypatch.context() as patch:
        patch.setattr("redis.asyncio.client.Pipeline.execute", broken)
        first = asyncio.create_task(take(limiter, group="first"))
        await run_tasks()
        meanwhile = [asyncio.create_task(take(limiter, group=group)) for group in ("first", "second", "second")]
        await run_tasks()
        gate.set()
        results = await asyncio.wait_for(asyncio.gather(first, *meanwhile, return_exceptions=True), PATIENCE_SECONDS)
    assert [type(each) for each in results] == [RedisUnavailable] * 4
    assert (await take(limiter, group="second")).allowed
