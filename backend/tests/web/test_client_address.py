"""The client's address: the first one, from the server backwards, that is no trusted proxy's; never one that the client
chose.
"""

from ipaddress import ip_address, ip_network

import httpx2
import pytest
from app.core.settings import Settings
from app.web.client_address import client_address, networks_of
from tests.conftest import Start
from tests.harness import new_email

LOOPBACK = "127.0.0.0/8"
PROXIES = (ip_network(LOOPBACK), ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


async def log_in(client: httpx2.AsyncClient, *forwarded: str) -> int:
    """A login that fails, unless the address has failed too often: 401 or 429."""
    credentials = {"email": new_email(), "password": "wrong password"}
    headers = [("X-Forwarded-For", each) for each in forwarded]
    return (await client.post("/v1/auth/login", json=credentials, headers=headers)).status_code


async def log_in_without_body(client: httpx2.AsyncClient, *forwarded: str) -> int:
    """A login that is refused before a password is hashed, which takes time: 415 or 429."""
    headers = [("X-Forwarded-For", each) for each in forwarded]
    return (await client.post("/v1/auth/login", headers=headers)).status_code


async def test_twelve_logins_with_twelve_forwarded_addresses_share_one_bucket(start: Start) -> None:
    client = await start(login_limit_per_ip="5/day")
    statuses = [await log_in(client, f"203.0.113.{number}") for number in range(12)]
    assert statuses == [401] * 5 + [429] * 7


@pytest.mark.parametrize("name", ["X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Via"])
async def test_no_other_header_gives_a_client_another_bucket(start: Start, name: str) -> None:
    client = await start(login_limit_per_ip="1/day", trusted_proxies=LOOPBACK)
    values = ["203.0.113.1", "for=203.0.113.2"]
    answers = [await client.post("/v1/auth/login", headers={name: value}) for value in values]
    assert [answer.status_code for answer in answers] == [415, 429]


async def test_behind_a_trusted_proxy_each_client_has_its_own_bucket(start: Start) -> None:
    client = await start(login_limit_per_ip="1/day", trusted_proxies=LOOPBACK)
    assert [await log_in(client, f"203.0.113.{number}") for number in (1, 2, 1, 2)] == [401, 401, 429, 429]


async def test_forged_hops_further_left_give_a_client_no_other_bucket(start: Start) -> None:
    client = await start(login_limit_per_ip="1/day", trusted_proxies=f"{LOOPBACK}, 10.0.0.0/8")
    assert await log_in_without_body(client, "203.0.113.1") == 415
    for forged in ("198.51.100.7", "198.51.100.8, 198.51.100.9", "10.1.2.3", "127.0.0.1", "garbage", "", ",,", "::1"):
        assert await log_in_without_body(client, f"{forged}, 203.0.113.1") == 429
        assert await log_in_without_body(client, f"{forged}, 203.0.113.1 , 10.0.0.2,127.0.0.1") == 429
        assert await log_in_without_body(client, forged, "203.0.113.1") == 429  # two headers are one list
        assert await log_in_without_body(client, forged, "203.0.113.1", "10.0.0.2") == 429


async def test_a_proxy_that_forwards_no_valid_address_counts_as_the_client(start: Start) -> None:
    client = await start(login_limit_per_ip="1/day", trusted_proxies=LOOPBACK)
    assert await log_in_without_body(client) == 415
    for invalid in ("", "unknown", "203.0.113.1, garbage", "203.0.113.1:port", "[203.0.113.1", "1.2.3", "999.1.1.1"):
        assert await log_in_without_body(client, invalid) == 429


async def test_an_ipv4_address_mapped_into_ipv6_is_the_same_client(start: Start) -> None:
    client = await start(login_limit_per_ip="1/day", trusted_proxies=LOOPBACK)
    assert await log_in_without_body(client, "203.0.113.1") == 415
    for spelling in (
        "::ffff:203.0.113.1",
        "::FFFF:cb00:7101",
        "0:0:0:0:0:ffff:203.0.113.1",
        "203.0.113.1, ::ffff:7f00:1",
    ):
        assert await log_in_without_body(client, spelling) == 429
    assert await log_in_without_body(client, "::ffff:203.0.113.2") == 415


async def test_a_thousand_addresses_of_one_ipv6_64_share_one_bucket(start: Start) -> None:
    client = await start(login_limit_per_ip="3/day", trusted_proxies=LOOPBACK)
    statuses = [await log_in_without_body(client, f"2001:db8:1:2:{number:x}::{number:x}") for number in range(1000)]
    assert statuses == [415] * 3 + [429] * 997
    assert await log_in_without_body(client, "2001:db8:1:3::1") == 415


async def test_sign_ups_are_counted_by_the_same_address(start: Start) -> None:
    client = await start(register_limit_per_ip="1/day", trusted_proxies=LOOPBACK)
    answers = [
        await client.post("/v1/auth/register", headers={"X-Forwarded-For": forwarded})
        for forwarded in ("203.0.113.1", "198.51.100.7, 203.0.113.1", "203.0.113.2")
    ]
    assert [answer.status_code for answer in answers] == [415, 429, 415]


def test_no_proxy_is_trusted_by_default() -> None:
    assert Settings().trusted_proxies == ()


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.1", [], "203.0.113.1"),
        ("203.0.113.1", ["198.51.100.7"], "203.0.113.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1,198.51.100.7, fd00::1 ,127.0.0.1"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.7, garbage, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["198.51.100.7, "], "10.0.0.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::1"),
        ("10.0.0.1", ["::ffff:10.0.0.2"], "10.0.0.2"),
    ],
)
def test_hops_are_read_from_the_right_for_as_long_as_they_are_trusted(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert client_address(ip_address(peer), forwarded=forwarded, trusted=PROXIES) == ip_address(client)
    assert client_address(ip_address(peer), forwarded=forwarded, trusted=()) == ip_address(peer)


@pytest.mark.parametrize(
    ("entry", "client"),
    [
        ("198.51.100.1:4444", "198.51.100.1"),
        (" 198.51.100.1:1\t", "198.51.100.1"),
        ('"198.51.100.1:65535"', "198.51.100.1"),
        ('" 198.51.100.1 "', "198.51.100.1"),
        ("[198.51.100.1]:80", None),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("[fe80::1%eth0]:443", "fe80::1"),
        ("[::ffff:198.51.100.1]:443", "198.51.100.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("198.51.100.1:", None),
        ("198.51.100.1:x", None),
        ("198.51.100.1:4444:4444", None),
        ("198.51.100.1:123456", None),
        ("198.51.100.1 :4444", None),
        ("198.51.100.256:4444", None),
        ('"198.51.100.1', None),
        ('"', None),
        ('""', None),
        ("[]:443", None),
        ("[2001:db8::1", None),
        ("2001:db8::1]:443", None),
        ("[2001:db8::1]443", None),
        ("[[2001:db8::1]]:443", None),
        ("[garbage]:443", None),
        (":4444", None),
        ("_hidden", None),
    ],
)
def test_the_port_of_a_forwarded_address_is_cut_and_a_malformed_entry_ends_the_way_back(
    entry: str, client: str | None
) -> None:
    assert client_address(ip_address("10.0.0.1"), forwarded=[f"1.1.1.1, {entry}"], trusted=PROXIES) == ip_address(
        client or "10.0.0.1"
    )


async def test_clients_whose_proxy_adds_their_ports_have_buckets_of_their_own(start: Start) -> None:
    client = await start(login_limit_per_ip="1/day", trusted_proxies=LOOPBACK)
    entries = ("198.51.100.1:4444", "198.51.100.2:4444", "198.51.100.1:5555", "[2001:db8::1]:1", "[2001:db8::1]:2")
    statuses = [await log_in_without_body(client, entry) for entry in entries]
    assert statuses == [415, 415, 429, 415, 429]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.1", "203.0.113.1"),
        ("0.0.0.1", "0.0.0.1"),
        ("255.255.255.255", "255.255.255.255"),
        ("::", "::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff::/64"),
    ],
)
def test_a_limit_per_address_counts_one_ipv4_address_or_one_ipv6_64(address: str, network: str) -> None:
    assert networks_of(ip_address(address)).host == network
