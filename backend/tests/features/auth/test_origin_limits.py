"""Signing up and logging in: limited by address, by network and for everybody, all of these at once or not at all."""

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


async def _knock(client: httpx2.AsyncClient, door: str, address: str = ADDRESS) -> httpx2.Response:
    """A call that costs no password: 415, unless a limit refuses it."""
    return await client.post(f"/v1/auth/{door}", headers={"X-Forwarded-For": address})


async def _statuses(client: httpx2.AsyncClient, door: str, *addresses: str) -> list[int]:
    return [(await _knock(client, door, address)).status_code for address in addresses]


def _limits(limits: Mapping[str, str]) -> dict[str, str]:
    """Settings by which both doors have these limits."""
    of_both = {f"{door}_limit_{place}": limit for door in DOORS for place, limit in limits.items()}
    return {"trusted_proxies": LOOPBACK, **of_both}


async def test_the_addresses_of_one_network_share_its_limit(start: Start) -> None:
    client = await start(**_limits({"per_ip": "2/day", "per_network": "3/day"}))
    for network, outside in [
        (["203.0.113.0", "203.0.113.1", "::ffff:203.0.113.254", "203.0.113.255"], "203.0.112.255"),
        (["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:1:ffff::1", "2001:db8:1:2::"], "2001:db8:2::1"),
        (["::ffff:192.0.2.0", "::ffff:c000:201", "192.0.2.254", "::ffff:192.0.2.255"], "::ffff:192.0.3.0"),
    ]:
        for door in DOORS:
            assert await _statuses(client, door, *network) == [415, 415, 415, 429]
            assert await _statuses(client, door, outside, outside, outside) == [415, 415, 429]


async def test_a_thousand_64s_of_one_48_are_one_network(start: Start) -> None:
    client = await start(**_limits({"per_network": "3/day"}))
    for first in range(0, 1000, 50):
        addresses = [f"2001:db8:1:{number:x}::{number:x}" for number in range(first, first + 50)]
        answers = await asyncio.gather(*(_knock(client, "register", address) for address in addresses))
        counted = Counter(answer.status_code for answer in answers)
        assert counted == ({429: 50} if first else {415: 3, 429: 47})
    assert await _statuses(client, "register", "2001:db8:2::1") == [415]


async def test_everybody_together_shares_one_limit(start: Start) -> None:
    client, addresses = await start(**_limits({"global": "3/day"})), (ADDRESS, STRANGER, "2001:db8::1", "192.0.2.1")
    for door in DOORS:
        assert await _statuses(client, door, *addresses) == [415, 415, 415, 429]


@EVERY_PLACE
async def test_without_a_trusted_proxy_twelve_forwarded_addresses_are_as_good_as_none(start: Start, place: str) -> None:
    client = await start(**{**_limits({place: "5/day"}), "trusted_proxies": ""})
    for door in DOORS:
        assert await _statuses(client, door, *(f"{n}.0.113.1" for n in range(1, 13))) == [415] * 5 + [429] * 7
        assert (await client.post(f"/v1/auth/{door}")).status_code == 429


async def test_what_a_caller_writes_further_left_does_not_move_it_to_another_network(start: Start) -> None:
    client = await start(**_limits({"per_network": "1/day"}))
    forged = [f"{claimed}, {ADDRESS}" for claimed in ("198.51.100.7", "127.0.0.1", "garbage", "", "2001:db8::1")]
    for door in DOORS:
        assert await _statuses(client, door, NEIGHBOUR, *forged) == [415] + [429] * 5


@EVERY_PLACE
@pytest.mark.usefixtures("limit_clock")
async def test_only_the_callers_own_address_is_told_whichever_limit_refuses(start: Start, place: str) -> None:
    client = await start(**_limits({"per_ip": "6/hour", "per_network": "7/hour", "global": "8/hour", place: "2/hour"}))
    count = 2 if place == "per_ip" else 6
    for door in DOORS:
        answers = [await _knock(client, door) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [415, 415, 429]
        assert [answer.headers["ratelimit"] for answer in answers] == [
            f'"{door}-ip";r={count - taken};t={taken * HOUR // count}' for taken in (1, 2, 2)
        ]
        for answer in answers:
            assert answer.headers["ratelimit-policy"] == f'"{door}-ip";q={count};w=3600'
            assert answer.headers["x-ratelimit-limit-requests"] == str(count)
            assert not [word for word in ("network", "global", "everybody") if word in f"{answer.headers}{answer.text}"]


@EVERY_PLACE
async def test_a_refusal_by_one_takes_nothing_from_the_others(start: Start, limit_clock: Clock, place: str) -> None:
    client = await start(**_limits({**dict.fromkeys(PLACES, "2/day"), place: "1/hour"}))
    for door in DOORS:
        assert await _statuses(client, door, *[ADDRESS] * 5) == [415] + [429] * 4
        limit_clock.now += HOUR
        assert await _statuses(client, door, *[ADDRESS] * 3) == [415, 429, 429]
        limit_clock.now += HOUR
        assert await _statuses(client, door, ADDRESS) == [429], "and now the others are used up"


@EVERY_PLACE
async def test_a_refusal_is_over_after_retry_after_and_not_before(start: Start, limit_clock: Clock, place: str) -> None:
    client = await start(**_limits({place: "7/hour"}))
    for door, pause in ((door, pause) for door in DOORS for pause in (0, 0.25, 100.999)):
        limit_clock.now += pause
        *_, answer = [await _knock(client, door) for _ in range(9)]
        assert (answer.status_code, answer.json()["detail"]) == (429, "Rate limit exceeded")
        limit_clock.now += int(answer.headers["retry-after"]) - 1
        assert await _statuses(client, door, ADDRESS) == [429]
        limit_clock.now += 1
        assert await _statuses(client, door, ADDRESS) == [415]


async def test_retry_after_waits_for_the_last_of_several_limits(start: Start, limit_clock: Clock) -> None:
    client = await start(**_limits({"per_ip": "1/minute", "per_network": "1/day", "global": "1/hour"}))
    for door in DOORS:
        assert await _statuses(client, door, ADDRESS) == [415]
        limit_clock.now += 1
        answers = [await _knock(client, door, address) for address in (ADDRESS, NEIGHBOUR, STRANGER)]
        assert [answer.headers["retry-after"] for answer in answers] == ["86399", "86399", "3599"]


async def test_each_door_has_limits_of_its_own(start: Start) -> None:
    client = await start(**_limits(dict.fromkeys(PLACES, "1/day")))
    for door in DOORS:
        assert await _statuses(client, door, ADDRESS, ADDRESS) == [415, 429]
