"""Limits of sign-ups and logins by address, by network and in all: a call takes from all three or from none."""

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

DOORS = ("register", "login")
PLACES = ("per_ip", "per_network", "global")
EVERY_PLACE = pytest.mark.parametrize("place", PLACES)


async def _call(client: httpx2.AsyncClient, route: str, address: str = ADDRESS) -> httpx2.Response:
    """A call that computes no hash: 415, unless a limit refuses it."""
    return await client.post(f"/v1/auth/{route}", headers={"X-Forwarded-For": address})


async def _statuses(client: httpx2.AsyncClient, route: str, *addresses: str) -> list[int]:
    return [(await _call(client, route, address)).status_code for address in addresses]


def _limits(limits: Mapping[str, str]) -> dict[str, str]:
    """Settings with these limits for both routes."""
    of_both = {f"{route}_limit_{place}": limit for route in DOORS for place, limit in limits.items()}
    return {"trusted_proxies": LOOPBACK, **of_both}


async def test_the_addresses_of_one_network_share_its_limit(start: Start) -> None:
    client = await start(**_limits({"per_ip": "2/day", "per_network": "3/day"}))
    for network, outside in [
        (["203.0.113.0", "203.0.113.1", "::ffff:203.0.113.254", "203.0.113.255"], "203.0.112.255"),
        (["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:1:ffff::1", "2001:db8:1:2::"], "2001:db8:2::1"),
        (["::ffff:192.0.2.0", "::ffff:c000:201", "192.0.2.254", "::ffff:192.0.2.255"], "::ffff:192.0.3.0"),
    ]:
        for route in DOORS:
            assert await _statuses(client, route, *network) == [415, 415, 415, 429]
            assert await _statuses(client, route, outside, outside, outside) == [415, 415, 429]


async def test_a_thousand_ipv6_64s_of_one_48_share_one_networks_limit(start: Start) -> None:
    client = await start(**_limits({"per_network": "3/day"}))
    for first in range(0, 1000, 50):
        addresses = [f"2001:db8:1:{number:x}::{number:x}" for number in range(first, first + 50)]
        answers = await asyncio.gather(*(_call(client, "register", address) for address in addresses))
        counted = Counter(answer.status_code for answer in answers)
        assert counted == ({429: 50} if first else {415: 3, 429: 47})
    assert await _statuses(client, "register", "2001:db8:2::1") == [415]


async def test_all_addresses_together_share_one_limit(start: Start) -> None:
    client, addresses = await start(**_limits({"global": "3/day"})), (ADDRESS, STRANGER, "2001:db8::1", "192.0.2.1")
    for route in DOORS:
        assert await _statuses(client, route, *addresses) == [415, 415, 415, 429]


@EVERY_PLACE
async def test_without_a_trusted_proxy_twelve_forwarded_addresses_share_one_limit(start: Start, place: str) -> None:
    client = await start(**{**_limits({place: "5/day"}), "trusted_proxies": ""})
    for route in DOORS:
        assert await _statuses(client, route, *(f"{n}.0.113.1" for n in range(1, 13))) == [415] * 5 + [429] * 7
        assert (await client.post(f"/v1/auth/{route}")).status_code == 429


async def test_forwarded_addresses_that_the_client_wrote_do_not_change_its_network(start: Start) -> None:
    client = await start(**_limits({"per_network": "1/day"}))
    forged = [f"{claimed}, {ADDRESS}" for claimed in ("198.51.100.7", "127.0.0.1", "garbage", "", "2001:db8::1")]
    for route in DOORS:
        assert await _statuses(client, route, NEIGHBOUR, *forged) == [415] + [429] * 5


@EVERY_PLACE
@pytest.mark.usefixtures("limit_clock")
async def test_the_headers_show_only_the_limit_of_the_clients_own_address(start: Start, place: str) -> None:
    client = await start(**_limits({"per_ip": "6/hour", "per_network": "7/hour", "global": "8/hour", place: "2/hour"}))
    count = 2 if place == "per_ip" else 6
    for route in DOORS:
        answers = [await _call(client, route) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [415, 415, 429]
        assert [answer.headers["ratelimit"] for answer in answers] == [
            f'"{route}-ip";r={count - taken};t={taken * HOUR // count}' for taken in (1, 2, 2)
        ]
        for answer in answers:
            assert answer.headers["ratelimit-policy"] == f'"{route}-ip";q={count};w=3600'
            assert answer.headers["x-ratelimit-limit-requests"] == str(count)
            assert not [word for word in ("network", "global", "everybody") if word in f"{answer.headers}{answer.text}"]


@EVERY_PLACE
async def test_a_refusal_by_one_limit_takes_nothing_from_the_others(
    start: Start, limit_clock: Clock, place: str
) -> None:
    client = await start(**_limits({**dict.fromkeys(PLACES, "2/day"), place: "1/hour"}))
    for route in DOORS:
        assert await _statuses(client, route, *[ADDRESS] * 5) == [415] + [429] * 4
        limit_clock.now += HOUR
        assert await _statuses(client, route, *[ADDRESS] * 3) == [415, 429, 429]
        limit_clock.now += HOUR
        assert await _statuses(client, route, ADDRESS) == [429], "and now the others are used up"


@EVERY_PLACE
async def test_a_refusal_is_over_after_retry_after_and_not_before(start: Start, limit_clock: Clock, place: str) -> None:
    client = await start(**_limits({place: "7/hour"}))
    for route, pause in ((route, pause) for route in DOORS for pause in (0, 0.25, 100.999)):
        limit_clock.now += pause
        *_, answer = [await _call(client, route) for _ in range(9)]
        assert (answer.status_code, answer.json()["detail"]) == (429, "Rate limit exceeded")
        limit_clock.now += int(answer.headers["retry-after"]) - 1
        assert await _statuses(client, route, ADDRESS) == [429]
        limit_clock.now += 1
        assert await _statuses(client, route, ADDRESS) == [415]


async def test_retry_after_covers_the_slowest_of_several_limits(start: Start, limit_clock: Clock) -> None:
    client = await start(**_limits({"per_ip": "1/minute", "per_network": "1/day", "global": "1/hour"}))
    for route in DOORS:
        assert await _statuses(client, route, ADDRESS) == [415]
        limit_clock.now += 1
        answers = [await _call(client, route, address) for address in (ADDRESS, NEIGHBOUR, STRANGER)]
        assert [answer.headers["retry-after"] for answer in answers] == ["86399", "86399", "3599"]


async def test_sign_ups_and_logins_have_separate_limits(start: Start) -> None:
    client = await start(**_limits(dict.fromkeys(PLACES, "1/day")))
    for route in DOORS:
        assert await _statuses(client, route, ADDRESS, ADDRESS) == [415, 429]
