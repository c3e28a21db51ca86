"""The cache of callers: it saves queries, and never decides whether a key is active."""

import asyncio
from collections.abc import Sequence

import asyncpg
import httpx2
import pytest
from app.generations.callers import KNOWN_SECONDS, UNKNOWN_SECONDS, CallerCache
from app.generations.errors import InvalidApiKey
from app.generations.spec import Caller
from tests.conftest import Start
from tests.harness import Account, Clock, Key, as_seen, generate

ADA = Caller(key_id="key_ada", account_id="acc_ada", environment="live", revision=0)
BEN = Caller(key_id="key_ben", account_id="acc_ben", environment="test", revision=0)


@pytest.fixture
def clock() -> Clock:
    return Clock(1000)


async def _find_nobody(key_hashes: Sequence[bytes]) -> Sequence[Caller | None]:
    return [None for _ in key_hashes]


@pytest.fixture
def cache(clock: Clock) -> CallerCache:
    return CallerCache(_find_nobody, clock=clock, entries_max=3)


def test_an_empty_cache_returns_none(cache: CallerCache) -> None:
    assert cache.get(b"a") is None


def test_each_caller_is_cached_under_its_own_key(cache: CallerCache) -> None:
    cache.put(b"a", ADA)
    cache.put(b"b", BEN)
    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")) == (ADA, BEN, None)


def test_a_cached_caller_expires_however_often_it_is_read(cache: CallerCache, clock: Clock) -> None:
    cache.put(b"a", ADA)
    clock.now += KNOWN_SECONDS - 0.001
    assert cache.get(b"a") == ADA
    clock.now += 0.001
    assert cache.get(b"a") is None


def test_an_unknown_key_is_cached_for_a_shorter_time(cache: CallerCache, clock: Clock) -> None:
    assert UNKNOWN_SECONDS < KNOWN_SECONDS
    cache.put(b"a", None)
    clock.now += UNKNOWN_SECONDS - 0.001
    with pytest.raises(InvalidApiKey):
        cache.get(b"a")
    clock.now += 0.001
    assert cache.get(b"a") is None


def test_what_is_fetched_later_replaces_what_was_known(cache: CallerCache, clock: Clock) -> None:
    cache.put(b"a", None)
    cache.put(b"a", ADA)
    assert cache.get(b"a") == ADA
    clock.now += KNOWN_SECONDS - 1
    cache.put(b"a", ADA)
    clock.now += KNOWN_SECONDS - 1
    assert cache.get(b"a") == ADA
    cache.put(b"a", None)
    with pytest.raises(InvalidApiKey):
        cache.get(b"a")


def test_the_cache_is_bounded_and_drops_its_oldest_entry(cache: CallerCache) -> None:
    for key_hash in (b"a", b"b", b"c"):
        cache.put(key_hash, ADA)
    cache.put(b"a", BEN)  # replaced: now the newest, and not a fourth entry
    assert [cache.get(each) for each in (b"a", b"b", b"c")] == [BEN, ADA, ADA]
    cache.put(b"d", None)
    assert [cache.get(each) for each in (b"a", b"b", b"c")] == [BEN, None, ADA]
    for number in range(100):
        cache.put(number.to_bytes(), None)
    assert [cache.get(each) for each in (b"x", b"y", b"z")] == [None, None, None]


class Database:
    """Knows callers by the hashes of their keys, and answers while `is_open`."""

    def __init__(self, **callers: Caller) -> None:
        self.callers = {name.encode(): caller for name, caller in callers.items()}
        self.queries: list[Sequence[bytes]] = []
        self.is_open = asyncio.Event()

    async def find(self, key_hashes: Sequence[bytes]) -> Sequence[Caller | None]:
        self.queries.append(key_hashes)
        await self.is_open.wait()
        return [self.callers.get(each) for each in key_hashes]


async def test_parallel_fetches_of_one_key_are_one_question_and_those_of_many_keys_one_query() -> None:
    database = Database(a=ADA, b=BEN)
    cache = CallerCache(database.find)
    first = [asyncio.ensure_future(cache.fetch(b"a")) for _ in range(100)]
    await asyncio.sleep(0.01)
    others = [asyncio.ensure_future(cache.fetch(each)) for each in (b"b", b"c", b"b")]
    await asyncio.sleep(0.01)
    first[0].cancel()  # the first call may be cancelled
    database.is_open.set()
    assert await asyncio.gather(*first[1:], *others) == [ADA] * 99 + [BEN, None, BEN]
    assert database.queries == [[b"a"], [b"b", b"c"]]
    assert await cache.fetch(b"a") == ADA
    assert database.queries == [[b"a"], [b"b", b"c"], [b"a"]]


async def test_a_fetch_that_fails_fails_for_all_waiting_calls_and_is_not_cached() -> None:
    async def find(key_hashes: Sequence[bytes]) -> Sequence[Caller | None]:
        if failures:
            raise failures.pop()
        return [ADA for _ in key_hashes]

    failures, cache = [OSError()], CallerCache(find)
    failed = await asyncio.gather(*(cache.fetch(b"a") for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in failed] == [OSError] * 3
    assert cache.get(b"a") is None
    assert await cache.fetch(b"a") == cache.get(b"a") == ADA


async def _make_known(client: httpx2.AsyncClient, key: Key) -> None:
    for _ in range(3):
        assert (await generate(client, key)).status_code == 200


async def test_a_revoked_key_is_refused_at_once_by_every_process_that_cached_it(
    client: httpx2.AsyncClient, start: Start, account: Account, database: asyncpg.Connection
) -> None:
    key, processes = await account.create_key(), [client, await start()]
    for process in processes:
        await _make_known(process, key)
    await account.revoke_key(key)
    answers = await asyncio.gather(*(generate(processes[n % 2], key) for n in range(20)))
    unknown = await generate(client, Key("", "nb_live_" + "0" * 32))
    assert unknown.status_code == 401
    assert {as_seen(answer)[0] for answer in answers} == {401}
    assert {as_seen(answer)[2] for answer in answers} == {as_seen(unknown)[2]}
    assert await database.fetchval("select count(*) from generations where key_id = $1", key.id) == 6


async def test_no_call_that_runs_during_a_revocation_is_recorded_after_it(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()
    await _make_known(client, key)
    calls = [asyncio.ensure_future(generate(client, key)) for _ in range(50)]
    await account.revoke_key(key)
    after = [await generate(client, key) for _ in range(5)]
    assert {answer.status_code for answer in after} == {401}
    delivered = [answer for answer in await asyncio.gather(*calls) if answer.status_code == 200]
    younger = """
        select count(*) filter (where delivered_at > revoked_at) as younger, count(*)
        from generations g join api_keys k on k.id = g.key_id where k.id = $1
    """
    assert tuple(await database.fetchrow(younger, key.id) or ()) == (0, 3 + len(delivered))


async def test_a_suspended_key_is_refused_at_once_and_works_again_once_it_is_enabled(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    key = await account.create_key()
    await _make_known(client, key)
    suspend = "update api_keys set is_suspended = $2 where id = $1"
    for suspended, status in ((True, 401), (False, 200), (True, 401)):
        await database.execute(suspend, key.id, suspended)
        assert (await generate(client, key)).status_code == status


async def test_a_new_key_works_at_once_after_unknown_ones_were_tried(
    client: httpx2.AsyncClient, account: Account
) -> None:
    unknown = Key("", "nb_live_" + "f" * 32)
    assert [(await generate(client, unknown)).status_code for _ in range(3)] == [401] * 3
    key = await account.create_key()
    assert (await generate(client, key)).status_code == 200
    assert (await generate(client, unknown)).status_code == 401


async def test_a_cached_key_records_and_reads_nothing_once_it_is_revoked(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    await _make_known(client, key)
    await account.revoke_key(key)
    for body in ({"size": "0x0"}, {"prompt": ""}, {}):
        assert (await generate(client, key, **body)).status_code in {401, 422}
    assert (await client.get("/v1/generations", headers=key.headers)).status_code == 401
