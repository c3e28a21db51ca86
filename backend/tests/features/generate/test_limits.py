"""How often a key and an account may generate: refusals, headers, and what mode `observe` counts."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import count

import http_sf
import httpx2
import pytest
from app.core.settings import Settings
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN, refusals
from tests.harness import Account, Clock, Key, generate, sign_up
from tests.problems import check_problem

TRIALS = 100
_OF_OPENAI = ("limit", "remaining", "reset")
LIMIT_HEADERS = ("RateLimit-Policy", "RateLimit", *(f"x-ratelimit-{name}-requests" for name in _OF_OPENAI))


@pytest.fixture
async def keys(account: Account) -> list[Key]:
    """Four keys of one account that have not been used."""
    return [await account.create_key() for _ in range(4)]


async def _try(client: httpx2.AsyncClient, key: Key) -> httpx2.Response:
    """A call that counts like any other and records nothing: 422, unless a limit refuses it."""
    return await generate(client, key, size="0x0")


def _limit_headers(answer: httpx2.Response) -> list[str]:
    return [answer.headers[name] for name in LIMIT_HEADERS]


def _parsed(answer: httpx2.Response, name: str) -> dict[str, dict[str, int]]:
    """The parameters of each member of a header that is a structured field, by the member's name."""
    members = http_sf.parse(answer.headers[name].encode(), tltype="list")
    assert isinstance(members, list)
    found: dict[str, dict[str, int]] = {}
    for member in members:
        assert isinstance(member, tuple)
        limit, parameters = member
        assert type(limit) is str
        found[limit] = {each: value for each, value in parameters.items() if type(value) is int}
        assert found[limit] == parameters
    assert len(found) == len(members)
    return found


@pytest.mark.usefixtures("limit_clock")
async def test_by_default_a_key_has_600_calls_a_minute_and_the_next_is_refused(start: Start, account: Account) -> None:
    default = Settings()
    assert (default.generate_limit_mode, default.generate_limit_per_key) == ("enforce", "600/minute")
    assert (default.generate_limit_per_account, default.generate_concurrency_per_key) == ("3000/minute", 100)
    limits = {name: getattr(default, name) for name in Settings.model_fields if name.startswith("generate_")}
    client, key = await start(**limits), await account.create_key()
    first = await _try(client, key)
    assert _limit_headers(first) == ['"key";q=600;w=60', '"key";r=599;t=1', "600", "599", "1s"]
    for _ in range(12):
        answers = await asyncio.gather(*(_try(client, key) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {422: 49, 429: 1}
    assert _limit_headers(await _try(client, key)) == ['"key";q=600;w=60', '"key";r=0;t=60', "600", "0", "60s"]


async def test_keys_share_the_limit_of_their_account_which_the_headers_show_if_less_remains(
    start: Start, limit_clock: Clock, keys: list[Key]
) -> None:
    client = await start(generate_limit_per_key="2/hour", generate_limit_per_account="3/hour")
    stranger = await (await sign_up(client)).create_key()
    answers = [await generate(client, key) for key in (keys[0], keys[0], keys[1], keys[1], keys[2])]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    of_key, of_both = '"key";q=2;w=3600', '"key";q=2;w=3600, "account";q=3;w=3600'
    assert [_limit_headers(answer) for answer in answers] == [
        [of_key, '"key";r=1;t=1800', "2", "1", "1800s"],
        [of_key, '"key";r=0;t=3600', "2", "0", "3600s"],
        [of_both, '"key";r=1;t=1800, "account";r=0;t=3600', "3", "0", "3600s"],
        [of_both, '"key";r=1;t=1800, "account";r=0;t=3600', "3", "0", "3600s"],
        [of_both, '"key";r=2;t=0, "account";r=0;t=3600', "3", "0", "3600s"],
    ]
    for refused in answers[3:]:
        check_problem(refused, 429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] == "1200"
    assert (await generate(client, stranger)).status_code == 200
    limit_clock.now += 1200
    assert [(await generate(client, key)).status_code for key in (keys[3], keys[2])] == [200, 429]


async def test_a_refusal_by_key_or_account_takes_nothing_from_the_other(
    start: Start, limit_clock: Clock, keys: list[Key]
) -> None:
    client = await start(generate_limit_per_key="1/day", generate_limit_per_account="3/day")
    calls = [keys[0], *[keys[0]] * 5, keys[1], *[keys[1]] * 5, keys[2], *[keys[3]] * 5]
    assert [(await _try(client, key)).status_code for key in calls] == ([422] + [429] * 5) * 3
    limit_clock.now += 28_800
    assert (await _try(client, keys[3])).status_code == 422, "it was the account that refused it"
    assert (await _try(client, keys[3])).headers["retry-after"] == "86400"


async def test_if_both_refuse_retry_after_is_the_longer_wait(start: Start, limit_clock: Clock, keys: list[Key]) -> None:
    client = await start(generate_limit_per_key="1/minute", generate_limit_per_account="1/hour")
    assert [(await _try(client, keys[0])).status_code for _ in range(2)] == [422, 429]
    assert [(await _try(client, key)).headers["retry-after"] for key in keys[:2]] == ["3600", "3600"]
    limit_clock.now += 3600
    assert (await _try(client, keys[1])).status_code == 422


async def test_a_client_that_waits_for_retry_after_is_not_refused_again(
    start: Start, limit_clock: Clock, keys: list[Key]
) -> None:
    client = await start(generate_limit_per_key="7/minute", generate_limit_per_account="23/hour")
    refusals, calls = 0, count()
    while refusals < TRIALS:
        call = next(calls)
        key = keys[call * call % 7 % len(keys)]
        answer = await _try(client, key)
        if answer.status_code == 429:
            refusals += 1
            limit_clock.now += int(answer.headers["retry-after"])
            assert (await _try(client, key)).status_code == 422, f"refusal {refusals}"
        limit_clock.now += [0, 0.000_001, call * 0.618_034 % 1 * 20][call % 3]


async def _sequence(client: httpx2.AsyncClient, keys: Sequence[Key]) -> list[httpx2.Response]:
    return [await _try(client, key) for key in [keys[0]] * 4 + [keys[1]] * 4]


@pytest.mark.usefixtures("limit_clock")
async def test_the_headers_are_structured_fields_alike_in_both_modes(start: Start, keys: list[Key]) -> None:
    limits = {"generate_limit_per_key": "2/hour", "generate_limit_per_account": "3/hour"}
    enforcing, observing = [await start(**limits, generate_limit_mode=mode) for mode in ("enforce", "observe")]
    refused, observed = await _sequence(enforcing, keys), await _sequence(observing, keys)
    assert [answer.status_code for answer in refused] == [422, 422, 429, 429, 422, 429, 429, 429]
    assert {answer.status_code for answer in observed} == {422}
    assert [_limit_headers(answer) for answer in observed] == [_limit_headers(answer) for answer in refused]
    assert not [answer for answer in observed if "retry-after" in answer.headers]
    for answer in observed:
        policies, states = _parsed(answer, "RateLimit-Policy"), _parsed(answer, "RateLimit")
        assert list(policies) == list(states) in (["key"], ["key", "account"])
        assert policies == {name: {"q": {"key": 2, "account": 3}[name], "w": 3600} for name in policies}
        assert {tuple(state) for state in states.values()} == {("r", "t")}
        assert min(state["r"] for state in states.values()) == int(answer.headers["x-ratelimit-remaining-requests"])
    assert [_parsed(answer, "RateLimit")["key"]["r"] for answer in observed] == [1, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("mode", ["observe", "enforce"])
@pytest.mark.usefixtures("limit_clock")
async def test_refusals_are_counted_for_each_limit_in_both_modes(start: Start, keys: list[Key], mode: str) -> None:
    client = await start(
        generate_limit_per_key="2/hour",
        generate_limit_per_account="3/hour",
        generate_limit_mode=mode,
        metrics_token=METRICS_TOKEN,
    )
    await _sequence(client, keys)
    assert await refusals(client) == {("key", mode): 2, ("account", mode): 3}
