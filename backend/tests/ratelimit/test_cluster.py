"""Limits in a Redis Cluster, of one node and of two."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from hashlib import sha1
from pathlib import Path

import pytest
from app.ratelimit import Limit, Slot, Take, TakeResult
from app.ratelimit.batches import RedisUnavailable
from app.ratelimit.redis import RedisLimiter, open_redis
from tests.ratelimit.sync_limiter import PATIENCE_SECONDS
from tests.redis_server import START_SECONDS, RedisServer, redis_server

HASH_SLOTS = [str(number) for number in range(16_384)]
GROUPS = [f"usr_{number}" for number in range(8)]
LIMIT = Limit(3, 3600)
SECRET = b"x" * 32  # with this secret the groups are on both nodes


def assign(nodes: Sequence[RedisServer]) -> None:
    """Gives each node its part of all hash slots, and lets the nodes know each other."""
    part = len(HASH_SLOTS) // len(nodes)
    for index, node in enumerate(nodes):
        node.command("CLUSTER", "ADDSLOTS", *HASH_SLOTS[index * part : (index + 1) * part])
        node.command("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
        node.command("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))


def wait_until_ok(nodes: Sequence[RedisServer]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not all("cluster_state:ok" in node.command("CLUSTER", "INFO") for node in nodes):
        assert time.monotonic() < deadline, [node.command("CLUSTER", "INFO") for node in nodes]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[list[RedisServer]]]:
    """One of one node and one of two, started together: a cluster needs two seconds until it answers."""
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
    """A limiter on the cluster that has a node at this URL."""
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


async def take(limiter: RedisLimiter, group: str, *, slot: Slot | None = None) -> TakeResult:
    takes = [Take("key", "key_1", LIMIT), Take("account", group, Limit(5, 3600))]
    return await limiter.take(takes, group=group, slot=slot)


async def test_calls_of_many_groups_at_once_are_decided_in_order(limiter: RedisLimiter) -> None:
    await limiter.connect()
    results = await asyncio.gather(*(take(limiter, group) for _ in range(4) for group in GROUPS))
    assert [each.allowed for each in results] == [True] * 3 * len(GROUPS) + [False] * len(GROUPS)
    of_key, of_account = zip(*(each.decisions for each in results), strict=True)
    assert [each.remaining for each in of_key] == [left for left in (2, 1, 0, 0) for _ in GROUPS]
    assert [each.remaining for each in of_account] == [left for left in (4, 3, 2, 2) for _ in GROUPS]


async def test_units_and_slots_can_be_returned(limiter: RedisLimiter) -> None:
    for group in GROUPS:
        slots = [Slot("key_1", 1, 30, str(number)) for number in range(3)]
        assert (await take(limiter, group, slot=slots[0])).allowed
        assert (await take(limiter, group, slot=slots[1])).no_free_slot
        limiter.release(slots[0], group=group)
        await limiter.give_back([Take("key", "key_1", LIMIT)], group=group)
        result = await take(limiter, group, slot=slots[2])
        assert result.allowed
        assert [decision.remaining for decision in result.decisions] == [2, 3]


async def test_after_nodes_lost_the_script_no_call_is_refused_or_counted_twice(
    limiter: RedisLimiter, clusters: list[list[RedisServer]]
) -> None:
    for left in (2, 1, 0):
        for nodes in clusters:
            nodes[-1].command("SCRIPT", "FLUSH")
        results = await asyncio.gather(*(take(limiter, group) for group in GROUPS))
        assert [each.decisions[0].remaining for each in results] == [left] * len(GROUPS)


async def test_the_clocks_of_nodes_may_differ(
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


async def test_calls_to_a_node_that_is_gone_raise_redis_unavailable(clusters: list[list[RedisServer]]) -> None:
    """The last test here, since a node that is started again needs two seconds."""
    nodes = clusters[1]
    async with limits_at(nodes[0].url.replace("redis:", "redis+cluster:")) as limiter:
        await asyncio.gather(*(take(limiter, group) for group in GROUPS))
        nodes[1].stop()
        results = await asyncio.gather(*(take(limiter, group) for group in GROUPS), return_exceptions=True)
    assert {type(each) for each in results} == {TakeResult, RedisUnavailable}
