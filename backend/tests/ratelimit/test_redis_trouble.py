"""The limiter in Redis when its callers leave, when Redis is late, and when something unexpected happens."""

import asyncio
from contextlib import suppress

import pytest
from app.ratelimit import Charge, Lease, Limit, Taken
from app.ratelimit.batches import OutOfReach
from app.ratelimit.redis import RedisLimiter
from redis.asyncio import Redis
from tests.harness import looks
from tests.ratelimit.sources import PATIENCE_SECONDS, NewLimiter
from tests.ratelimit.test_redis import LIMIT, counts, remaining, take
from tests.redis_server import RedisServer

SHORT_SECONDS = 0.2


async def some_turns() -> None:
    """Lets everybody go on until they wait for Redis."""
    for _ in range(20):
        await asyncio.sleep(0)


async def warmed(limiter: RedisLimiter) -> RedisLimiter:
    """Once it is connected and knows the time of Redis."""
    for number in range(100):
        with suppress(OutOfReach):
            await limiter.reach()
            await take(limiter, f"warm-{number}", group="warm")
            return limiter
    raise AssertionError("never decided")


async def until_asked_for(looker: Redis, scripts: int) -> None:
    """Returns once Redis has begun with so many scripts."""
    for _ in looks():
        if (await counts(looker))[0] >= scripts:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never did")


async def test_what_redis_begins_with_too_late_does_nothing(
    server: RedisServer, looker: Redis, new_limiter: NewLimiter
) -> None:
    charge, lease = Charge("key", "ada", LIMIT), Lease("ada", 1, 30, "late")
    others, limiter = new_limiter(), await warmed(new_limiter(timeout_seconds=SHORT_SECONDS))
    await take(others)
    scripts, _reads = await counts(looker)
    server.freeze()
    for late in (limiter.take([charge], group="ada", lease=lease), limiter.give_back([charge], group="ada")):
        with pytest.raises(OutOfReach):
            await late
    await asyncio.sleep(SHORT_SECONDS)  # what Redis knows of our time is older by one round trip
    server.thaw()
    await until_asked_for(looker, scripts + 2)
    taken = await others.take([charge], group="ada", lease=lease._replace(id="in time"))
    assert taken.allowed
    assert remaining([taken]) == [3]


async def test_whoever_waits_behind_a_round_trip_that_fails_does_not_wait_for_another(
    server: RedisServer, looker: Redis, new_limiter: NewLimiter
) -> None:
    limiter = await warmed(new_limiter(timeout_seconds=SHORT_SECONDS))
    scripts, _reads = await counts(looker)
    server.freeze()
    asked = []
    for _ in range(3):
        asked.append(asyncio.create_task(take(limiter)))
        await some_turns()
    told = await asyncio.gather(*asked, return_exceptions=True)
    server.thaw()
    assert [type(each) for each in told] == [OutOfReach] * 3
    await until_asked_for(looker, scripts + 1)
    assert (await counts(looker))[0] == scripts + 1


async def test_answers_that_come_too_late_are_nobody_elses(server: RedisServer, new_limiter: NewLimiter) -> None:
    limiter = await warmed(new_limiter(timeout_seconds=SHORT_SECONDS))
    for attempt in range(3):
        server.freeze()
        with pytest.raises(OutOfReach):
            await asyncio.gather(*(take(limiter, f"{attempt}-{number}") for number in range(5)))
        server.thaw()
        await warmed(limiter)
    patient = new_limiter()
    for count in range(1, 20):
        [decision] = (await take(patient, f"caller-{count}", limit=Limit(count, 60), group=f"group-{count}")).decisions
        assert decision.remaining == count - 1


async def test_a_connection_that_redis_closed_meanwhile_is_no_trouble(
    server: RedisServer, new_limiter: NewLimiter
) -> None:
    limiter = new_limiter()
    for left in (4, 3, 2):
        server.command("CLIENT", "KILL", "TYPE", "normal")
        server.command("PING")
        await some_turns()
        assert remaining([await take(limiter)]) == [left]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("sent", [True, False], ids=["after it was sent", "before it was sent"])
async def test_a_caller_who_leaves_harms_nobody_else(
    server: RedisServer, new_limiter: NewLimiter, *, place: int, sent: bool
) -> None:
    limiter = await warmed(new_limiter())
    server.freeze()
    asked = [asyncio.create_task(take(limiter)) for _ in range(3)]
    if sent:
        await some_turns()
    else:
        await asyncio.sleep(0)
    asked[place].cancel()
    server.thaw()
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(told.pop(place), asyncio.CancelledError)
    assert [each for each in told if isinstance(each, BaseException) or not each.allowed] == []
    assert (await take(limiter, "bob")).allowed


async def test_a_call_that_cannot_be_put_into_words_harms_nobody_else(new_limiter: NewLimiter) -> None:
    limiter = new_limiter()
    odd = [Charge("key", "ada", LIMIT), Charge("key", "\ud800", LIMIT)]
    asked = take(limiter), limiter.take(odd, group="ada"), take(limiter), take(limiter, "bob")
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(told[1], UnicodeEncodeError)
    assert remaining([each for each in told if isinstance(each, Taken)]) == [4, 3, 4]


async def test_nobody_hangs_when_the_client_raises_something_unexpected(
    new_limiter: NewLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter, gate = await warmed(new_limiter()), asyncio.Event()

    async def broken(*_words: object, **_options: object) -> None:
        await gate.wait()
        raise RuntimeError("unexpected")

    with monkeypatch.context() as patch:
        patch.setattr("redis.asyncio.client.Pipeline.execute", broken)
        first = asyncio.create_task(take(limiter, group="first"))
        await some_turns()
        meanwhile = [asyncio.create_task(take(limiter, group=group)) for group in ("first", "second", "second")]
        await some_turns()
        gate.set()
        told = await asyncio.wait_for(asyncio.gather(first, *meanwhile, return_exceptions=True), PATIENCE_SECONDS)
    assert [type(each) for each in told] == [OutOfReach] * 4
    assert (await take(limiter, group="second")).allowed
