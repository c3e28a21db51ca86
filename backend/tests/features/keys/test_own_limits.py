"""Limits that were set for a key or an account: their order, when servers apply them, and invalid ones."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest
from app.core.db import SessionMaker, create_engine
from app.core.limit_settings import LimitSettings
from app.core.security import new_id
from app.core.settings import ConfigurationError
from app.features.keys.limits import Change, OwnLimits, find_limits, read_change, set_limits
from app.generations.callers import KNOWN_SECONDS
from sqlalchemy.ext.asyncio import async_sessionmaker
from tests.conftest import Start
from tests.features.held import held
from tests.harness import Account, Clock, Key, everything_stored, generate, new_email, sign_up

DAY = 86_400
NOTHING: Change = {"generate_limit": None, "generate_concurrency": None}
NOTHING_OF_ACCOUNT: Change = {"generate_limit": None, "generate_limit_per_key": None, "generate_concurrency": None}


@pytest.fixture
async def key(account: Account) -> Key:
    """A key that has not been used."""
    return await account.create_key()


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[SessionMaker]:
    """A session maker as the command line has it."""
    engine = create_engine(database_url, pool_size=1)
    yield async_sessionmaker(engine)
    await engine.dispose()


@pytest.fixture
def cache_clock(externals: dict[str, Any]) -> Clock:
    """The clock by which applications that are started from now on forget their callers."""
    clock = Clock(1_000_000)
    externals["cache_clock"] = clock
    return clock


async def _give(sessions: SessionMaker, owner: str, **texts: str) -> bool:
    """What `nanobanana limits set` does with these arguments."""
    async with sessions.begin() as session:
        return await set_limits(session, owner=owner, change=read_change(texts))


async def _find(sessions: SessionMaker, email: str) -> list[OwnLimits]:
    async with sessions.begin() as session:
        return await find_limits(session, owner=email, settings=LimitSettings())


async def _policy(client: httpx2.AsyncClient, key: Key) -> str:
    policy: str = (await generate(client, key, size="0x0")).headers["ratelimit-policy"]
    return policy


async def test_a_limit_of_the_key_precedes_that_of_its_account_which_precedes_the_settings(
    start: Start, sessions: SessionMaker, cache_clock: Clock, account: Account, key: Key
) -> None:
    client, other = await start(generate_limit_per_key="50/hour"), await account.create_key()
    for owner, text, of_key, of_other in [
        (account.email, None, '"key";q=50;w=3600', '"key";q=50;w=3600'),
        (account.email, "700/minute", '"key";q=700;w=60', '"key";q=700;w=60'),
        (key.id, "999999/day", '"key";q=999999;w=86400', '"key";q=700;w=60'),
        (key.id, "10/second", '"key";q=10;w=1', '"key";q=700;w=60'),
        (account.email, "default", '"key";q=10;w=1', '"key";q=50;w=3600'),
        (key.id, "default", '"key";q=50;w=3600', '"key";q=50;w=3600'),
    ]:
        if text is not None:
            name = "generate_limit" if owner == key.id else "generate_limit_per_key"
            assert await _give(sessions, owner, **{name: text})
        cache_clock.now += KNOWN_SECONDS
        assert (await _policy(client, key), await _policy(client, other)) == (of_key, of_other)


async def test_a_limit_of_the_account_precedes_the_settings(
    start: Start, sessions: SessionMaker, cache_clock: Clock, limit_clock: Clock, account: Account
) -> None:
    client, key = await start(generate_limit_per_account="1/day"), await account.create_key()
    stranger, statuses = await (await sign_up(client)).create_key(), []
    for text in ("default", "3/day", "2/hour", "default"):
        assert await _give(sessions, account.email.upper(), generate_limit=text)
        cache_clock.now += KNOWN_SECONDS
        limit_clock.now += DAY
        statuses.append([(await generate(client, key, size="0x0")).status_code for _ in range(4)])
    assert statuses == [[422, 429, 429, 429], [422, 422, 422, 429], [422, 422, 429, 429], [422, 429, 429, 429]]
    assert [(await generate(client, stranger, size="0x0")).status_code for _ in range(2)] == [422, 429]


async def test_a_faster_limit_refills_a_spent_key_at_its_own_rate(
    start: Start, sessions: SessionMaker, cache_clock: Clock, limit_clock: Clock, account: Account
) -> None:
    client, key = await start(generate_limit_per_key="1/day"), await account.create_key()
    assert [(await generate(client, key, size="0x0")).status_code for _ in range(2)] == [422, 429]
    assert await _give(sessions, key.id, generate_limit="60/minute")
    cache_clock.now += KNOWN_SECONDS
    assert (await generate(client, key, size="0x0")).headers["retry-after"] == "1"
    limit_clock.now += 1
    assert [(await generate(client, key, size="0x0")).status_code for _ in range(2)] == [422, 429]


@pytest.mark.usefixtures("patience")
async def test_the_slots_of_a_key_follow_the_same_order(
    start: Start, sessions: SessionMaker, cache_clock: Clock, account: Account, database: asyncpg.Connection
) -> None:
    client = await start(generate_concurrency_per_key=3, record_deadline_seconds=60)
    key = await account.create_key()
    changes = [(account.email, "default", 3), (account.email, "1", 1), (key.id, "4", 4), (account.email, "default", 4)]
    for owner, text, slots in [*changes, (key.id, "default", 3)]:
        assert await _give(sessions, owner, generate_concurrency=text)
        cache_clock.now += KNOWN_SECONDS
        async with held(database, key, client, slots=slots) as refused:
            assert {answer.json()["code"] for answer in refused} == {"concurrency_limit_exceeded"}


async def test_a_running_server_applies_a_new_limit_within_ten_seconds(
    start: Start, sessions: SessionMaker, cache_clock: Clock, key: Key
) -> None:
    client = await start(generate_limit_per_key="50/hour")
    assert [await _policy(client, key) for _ in range(2)] == ['"key";q=50;w=3600'] * 2
    assert await _give(sessions, key.id, generate_limit="60/hour")
    cache_clock.now += 10
    assert await _policy(client, key) == '"key";q=60;w=3600'
    assert await _policy(await start(generate_limit_per_key="50/hour"), key) == '"key";q=60;w=3600'


async def test_find_limits_shows_what_was_set_for_an_account_and_its_unrevoked_keys_and_what_holds_elsewhere(
    sessions: SessionMaker, account: Account, other_account: Account, key: Key
) -> None:
    revoked, second = await account.create_key(), await account.create_key()
    await account.revoke_key(revoked)
    assert await _give(sessions, account.email, generate_limit="9/day", generate_limit_per_key="8/day")
    assert await _give(sessions, account.email, generate_concurrency="1000000")
    assert await _give(sessions, second.id, generate_concurrency="1", generate_limit="7/day")
    assert await _give(sessions, second.id, generate_limit="default")
    of_account: Change = {
        "generate_limit": "9/day",
        "generate_limit_per_key": "8/day",
        "generate_concurrency": 1_000_000,
    }
    of_settings: dict[str, str | int] = {
        "generate_limit": "3000/minute",
        "generate_limit_per_key": "600/minute",
        "generate_concurrency": 100,
    }
    by_account: dict[str, str | int] = {"generate_limit": "8/day", "generate_concurrency": 1_000_000}
    of_second = OwnLimits(second.id, {**NOTHING, "generate_concurrency": 1}, by_account)
    assert await _find(sessions, account.email.upper()) == [
        OwnLimits(account.email, of_account, of_settings),
        OwnLimits(key.id, NOTHING, by_account),
        of_second,
    ]
    assert await _find(sessions, second.id) == [of_second]
    assert await _find(sessions, revoked.id) == []
    assert await _find(sessions, other_account.email) == [
        OwnLimits(other_account.email, NOTHING_OF_ACCOUNT, of_settings)
    ]


@pytest.mark.parametrize("name", ["generate_limit", "generate_limit_per_key"])
@pytest.mark.parametrize(
    "text",
    [
        *("", "600", "0/minute", "-1/minute", "+1/minute", "01/minute", "1e3", "1e3/minute", "1.5/minute", "600/min"),
        *("600/MINUTE", " 600/minute", "600/minute\n", "600 / minute", "10000000/second", "\u0661/day", "Default"),
    ],
    ids=ascii,
)
def test_an_invalid_limit_raises_a_sentence(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^A limit must look like 600/minute"):
        read_change({name: text})


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "+1", "01", "1e3", "1.0", "1_0", " 1", "1\n", "1000001", "9" * 5000, "\u0661"], ids=ascii
)
def test_an_invalid_concurrency_raises_a_sentence(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^The concurrency must be a number from 1 to 1000000\.$"):
        read_change({"generate_concurrency": text})


async def test_a_change_that_does_not_fit_its_owner_changes_nothing(
    sessions: SessionMaker, account: Account, key: Key, database: asyncpg.Connection
) -> None:
    before = await everything_stored(database)
    none, unfit = "^Name a limit to set: --generate, ", "^--generate-per-key is for accounts; "
    for owner, texts, sentence in [
        (key.id, {"generate_limit_per_key": "9/day"}, unfit),
        (key.id, {"generate_limit": "9/day", "generate_limit_per_key": "default"}, unfit),
        (key.id, {}, none),
        (account.email, {}, none),
        (account.email, {"generate_limit": "9/day", "password_hash": "default"}, unfit),
    ]:
        with pytest.raises(ConfigurationError, match=sentence):
            await _give(sessions, owner, **texts)
    for unknown in (new_id("key"), new_email(), key.id.upper(), f"{key.id} ", key.raw, "", "%", new_id("usr")):
        assert not await _give(sessions, unknown, generate_limit="9/day")
        assert await _find(sessions, unknown) == []
    assert await everything_stored(database) == before
