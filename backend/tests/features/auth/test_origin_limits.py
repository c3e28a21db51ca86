"""Sign-ups and logins are limited by address, by network and in all: a call takes from all three or from none."""

import asyncio
from collections import Counter
from collections.abc import Mapping

import httpx2
import pytest
from tests.conftest import Start
from tests.harness import Clock

LOOPBACK = "127.0.0.0/8"
ADDRESS, NEIGHBOUR, STRANGER = "203.0.113.1", "203.0.113.2", "198.51.100.1"
HOUR = 3600

ACTIONS = ("register", "login")
SCOPES = ("per_ip", "per_network", "global")
EVERY_SCOPE = pytest.mark.parametrize("scope", SCOPES)


async def _attempt(client: httpx2.AsyncClient, action: str, address: str = ADDRESS) -> httpx2.Response:
    """A call that is answered before any password is hashed: 415, or 429 if a limit refuses it."""
    return await client.post(f"/v1/auth/{action}", headers={"X-Forwarded-For": address})


async def _statuses(client: httpx2.AsyncClient, action: str, *addresses: str) -> list[int]:
    return [(await _attempt(client, action, address)).status_code for address in addresses]


def _limits(limits: Mapping[str, str]) -> dict[str, str]:
    """Settings that give both actions these limits."""
    of_both = {f"{action}_limit_{scope}": limit for action in ACTIONS for scope, limit in limits.items()}
    return {"trusted_proxies": LOOPBACK, **of_both}


async def test_the_addresses_of_one_network_share_its_limit(start: Start) -> None:
    client = await start(**_limits({"per_ip": "2/day", "per_network": "3/day"}))
    for network, outside in [
        (["203.0.113.0", "203.0.113.1", "::ffff:203.0.113.254", "203.0.113.255"], "203.0.112.255"),
        (["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:1:ffff::1", "2001:db8:1:2::"], "2001:db8:2::1"),
        (["::ffff:192.0.2.0", "::ffff:c000:201", "192.0.2.254", "::ffff:192.0.2.255"], "::ffff:192.0.3.0"),
    ]:
        for action in ACTIONS:
            assert await _statuses(client, action, *network) == [415, 415, 415, 429]
            assert await _statuses(client, action, outside, outside, outside) == [415, 415, 429]


async def test_a_thousand_ipv6_64s_of_one_48_share_one_networks_limit(start: Start) -> None:
    client = await start(**_limits({"per_network": "3/day"}))
    for first in range(0, 1000, 50):
        addresses = [f"2001:db8:1:{number:x}::{number:x}" for number in range(first, first + 50)]
        answers = await asyncio.gather(*(_attempt(client, "register", address) for address in addresses))
        counted = Counter(answer.status_code for answer in answers)
        assert counted == ({429: 50} if first else {415: 3, 429: 47})
    assert await _statuses(client, "register", "2001:db8:2::1") == [415]


async def test_all_addresses_share_the_global_limit(start: Start) -> None:
    client, addresses = await start(**_limits({"global": "3/day"})), (ADDRESS, STRANGER, "2001:db8::1", "192.0.2.1")
    for action in ACTIONS:
        assert await _statuses(client, action, *addresses) == [415, 415, 415, 429]


@EVERY_SCOPE
async def test_without_a_trusted_proxy_forwarded_addresses_are_ignored(start: Start, scope: str) -> None:
    client = await start(**{**_limits({scope: "5/day"}), "trusted_proxies": ""})
    for action in ACTIONS:
        assert await _statuses(client, action, *(f"{n}.0.113.1" for n in range(1, 13))) == [415] * 5 + [429] * 7
        assert (await client.post(f"/v1/auth/{action}")).status_code == 429


async def test_addresses_that_the_client_forwarded_itself_do_not_change_its_network(start: Start) -> None:
    client = await start(**_limits({"per_network": "1/day"}))
    forged = [f"{claimed}, {ADDRESS}" for claimed in ("198.51.100.7", "127.0.0.1", "garbage", "", "2001:db8::1")]
    for action in ACTIONS:
        assert await _statuses(client, action, NEIGHBOUR, *forged) == [415] + [429] * 5


@EVERY_SCOPE
@pytest.mark.usefixtures("limit_clock")
async def test_headers_show_the_limit_of_the_address_only_whichever_limit_refuses(start: Start, scope: str) -> None:
    client = await start(**_limits({"per_ip": "6/hour", "per_network": "7/hour", "global": "8/hour", scope: "2/hour"}))
    count = 2 if scope == "per_ip" else 6
    for action in ACTIONS:
        answers = [await _attempt(client, action) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [415, 415, 429]
        assert [answer.headers["ratelimit"] for answer in answers] == [
            f'"{action}-ip";r={count - taken};t={taken * HOUR // count}' for taken in (1, 2, 2)
        ]
        for answer in answers:
            assert answer.headers["ratelimit-policy"] == f'"{action}-ip";q={count};w=3600'
            assert answer.headers["x-ratelimit-limit-requests"] == str(count)
            assert not [word for word in ("network", "global", "everybody") if word in f"{answer.headers}{answer.text}"]


@EVERY_SCOPE
async def test_a_refusal_by_one_takes_nothing_from_the_others(start: Start, limit_clock: Clock, scope: str) -> None:
    client = await start(**_limits({**dict.fromkeys(SCOPES, "2/day"), scope: "1/hour"}))
    for action in ACTIONS:
        assert await _statuses(client, action, *[ADDRESS] * 5) == [415] + [429] * 4
        limit_clock.now += HOUR
        assert await _statuses(client, action, *[ADDRESS] * 3) == [415, 429, 429]
        limit_clock.now += HOUR
        assert await _statuses(client, action, ADDRESS) == [429], "the other limits are spent"


@EVERY_SCOPE
async def test_a_refusal_ends_exactly_after_retry_after(start: Start, limit_clock: Clock, scope: str) -> None:
    client = await start(**_limits({scope: "7/hour"}))
    for action, pause in ((action, pause) for action in ACTIONS for pause in (0, 0.25, 100.999)):
        limit_clock.now += pause
        *_, answer = [await _attempt(client, action) for _ in range(9)]
        assert (answer.status_code, answer.json()["detail"]) == (429, "Rate limit exceeded")
        limit_clock.now += int(answer.headers["retry-after"]) - 1
        assert await _statuses(client, action, ADDRESS) == [429]
        limit_clock.now += 1
        assert await _statuses(client, action, ADDRESS) == [415]


async def test_retry_after_is_the_longest_wait_of_several_limits(start: Start, limit_clock: Clock) -> None:
    client = await start(**_limits({"per_ip": "1/minute", "per_network": "1/day", "global": "1/hour"}))
    for action in ACTIONS:
        assert await _statuses(client, action, ADDRESS) == [415]
        limit_clock.now += 1
        answers = [await _attempt(client, action, address) for address in (ADDRESS, NEIGHBOUR, STRANGER)]
        assert [answer.headers["retry-after"] for answer in answers] == ["86399", "86399", "3599"]


async def test_sign_ups_and_logins_have_limits_of_their_own(start: Start) -> None:
    client = await start(**_limits(dict.fromkeys(SCOPES, "1/day")))
    for action in ACTIONS:
        assert await _statuses(client, action, ADDRESS, ADDRESS) == [415, 429]
