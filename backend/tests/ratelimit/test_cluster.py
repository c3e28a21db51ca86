"""Limits in a Redis Cluster, of one node and of two."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from hashlib import sha1
from pathlib import Path

import pytest
from app.ratelimit import Charge, Lease, Limit, Taken
from app.ratelimit.batches import OutOfReach
from app.ratelimit.redis import RedisLimiter, open_redis
from tests.ratelimit.sources import PATIENCE_SECONDS
from tests.redis_server import START_SECONDS, RedisServer, redis_server

SLOTS = [str(slot) for slot in range(16_384)]
GROUPS = [f"usr_{number}" for number in range(8)]
LIMIT = Limit(3, 3600)
SECRET = b"x" * 32  # with this one, the groups are on both nodes


def assign(nodes: Sequence[RedisServer]) -> None:
    """Gives each node its part of all slots, and lets them know each other."""
    part = len(SLOTS) // len(nodes)
    for place, node in enumerate(nodes):
        node.command("CLUSTER", "ADDSLOTS", *SLOTS[place * part : (place + 1) * part])
        node.command("CLUSTER", "SET-CONFIG-EPOCH", str(place + 1))
        node.command("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))


def wait_until_ok(nodes: Sequence[RedisServer]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not all("cluster_state:ok" in node.command("CLUSTER", "INFO") for node in nodes):
        assert time.monotonic() < deadline, [node.command("CLUSTER", "INFO") for node in nodes]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[list[RedisServer]]]:
    """One of one node and one of two, begun together: each takes two seconds until it takes calls."""
    with ExitStack() as stack:
        found = [
            [
                stack.enter_context(redis_server(tmp_path_factory.mktemp("node"), "--cluster-enabled", "yes"))
                for _ in range(size)
            ]
            for size in (1, 2)
        ]
        for nodes in found:
            assign(nodes)
        for nodes in found:
            wait_until_ok(nodes)
        yield found


@asynccontextmanager
async def limits_at(url: str) -> AsyncIterator[RedisLimiter]:
    """A limiter with the cluster that has a node at this address."""
    limiter = RedisLimiter(open_redis(url), secret=SECRET, timeout_seconds=PATIENCE_SECONDS)
    try:
        yield limiter
    finally:
        await limiter.close()


@pytest.fixture(params=["redis of one", "redis+cluster of one", "redis+cluster of two"])
async def limiter(request: pytest.FixtureRequest, clusters: list[list[RedisServer]]) -> AsyncIterator[RedisLimiter]:
    scheme, _, size = request.param.partition(" of ")
    nodes = clusters[size == "two"]
    for node in nodes:
        node.command("FLUSHALL")
    async with limits_at(nodes[0].url.replace("redis:", f"{scheme}:")) as limiter:
        yield limiter


async def take(limiter: RedisLimiter, group: str, *, lease: Lease | None = None) -> Taken:
    charges = [Charge("key", "key_1", LIMIT), Charge("account", group, Limit(5, 3600))]
    return await limiter.take(charges, group=group, lease=lease)


async def test_limits_of_many_groups_are_decided_at_once_and_in_order(limiter: RedisLimiter) -> None:
    await limiter.reach()
    taken = await asyncio.gather(*(take(limiter, group) for _ in range(4) for group in GROUPS))
    assert [each.allowed for each in taken] == [True] * 3 * len(GROUPS) + [False] * len(GROUPS)
    of_key, of_account = zip(*(each.decisions for each in taken), strict=True)
    assert [each.remaining for each in of_key] == [left for left in (2, 1, 0, 0) for _ in GROUPS]
    assert [each.remaining for each in of_account] == [left for left in (4, 3, 2, 2) for _ in GROUPS]


async def test_units_and_leases_come_back(limiter: RedisLimiter) -> None:
    for group in GROUPS:
        leases = [Lease("key_1", 1, 30, str(number)) for number in range(3)]
        assert (await take(limiter, group, lease=leases[0])).allowed
        assert (await take(limiter, group, lease=leases[1])).crowded
        limiter.end(leases[0], group=group)
        await limiter.give_back([Charge("key", "key_1", LIMIT)], group=group)
        taken = await take(limiter, group, lease=leases[2])
        assert taken.allowed
        assert [decision.remaining for decision in taken.decisions] == [2, 3]


async def test_nodes_that_forgot_the_script_refuse_nobody_and_count_nobody_twice(
    limiter: RedisLimiter, clusters: list[list[RedisServer]]
) -> None:
    for left in (2, 1, 0):
        for nodes in clusters:
            nodes[-1].command("SCRIPT", "FLUSH")
        taken = await asyncio.gather(*(take(limiter, group) for group in GROUPS))
        assert [each.decisions[0].remaining for each in taken] == [left] * len(GROUPS)


async def test_nodes_may_have_clocks_that_differ(
    clusters: list[list[RedisServer]], backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, script = clusters[1], (backend / "app/ratelimit/decide.lua").read_text()
    clock = "time[1] * 1000000 + time[2]"
    fast = f"{clock} + (string.find(redis.call('INFO', 'server'), 'tcp_port:{nodes[1].port}') and 3600000000 or 0)"
    assert clock in script
    differing = script.replace(clock, fast).encode()
    monkeypatch.setattr("app.ratelimit.redis._SCRIPT", differing)
    monkeypatch.setattr("app.ratelimit.redis._SCRIPT_SHA", sha1(differing, usedforsecurity=False).hexdigest())
    async with limits_at(nodes[0].url.replace("redis:", "redis+cluster:")) as limiter:
        for _ in range(3):
            for group in GROUPS:
                assert (await take(limiter, f"{group}, by its clock")).allowed


async def test_a_node_that_is_gone_is_told_as_out_of_reach(clusters: list[list[RedisServer]]) -> None:
    """The last one here: a node that comes back needs two seconds."""
    nodes = clusters[1]
    async with limits_at(nodes[0].url.replace("redis:", "redis+cluster:")) as limiter:
        await asyncio.gather(*(take(limiter, group) for group in GROUPS))
        nodes[1].stop()
        told = await asyncio.gather(*(take(limiter, group) for group in GROUPS), return_exceptions=True)
    assert {type(each) for each in told} == {Taken, OutOfReach}
