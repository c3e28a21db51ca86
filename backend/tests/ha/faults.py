"""What befalls a database of three hosts. After each, all three serve again without an operator."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.ha.cluster import PatroniCluster
from tests.ha.hosts import Host

_SILENT_SECONDS = 12
_ETCD_SILENT_SECONDS = 30  # longer than the leader's lock lasts


class Fault(NamedTuple):
    name: str
    befall: Callable[[PatroniCluster], Awaitable[None]]


async def _leader_and_standbys(cluster: PatroniCluster) -> tuple[str, list[Host]]:
    leader = await cluster.leader()
    return leader, [host for name, host in cluster.hosts.items() if name != leader]


async def _host_dies(cluster: PatroniCluster) -> None:
    leader = await cluster.leader()
    await cluster.hosts[leader].kill()
    await cluster.another_leader(leader)
    cluster.hosts[leader].start()


async def _postgresql_dies(cluster: PatroniCluster) -> None:
    await cluster.hosts[await cluster.leader()].kill(below="data")


async def _host_freezes(cluster: PatroniCluster) -> None:
    leader = await cluster.leader()
    cluster.hosts[leader].freeze()
    await cluster.another_leader(leader)
    await asyncio.sleep(2)  # callers are on the new primary when the former one is back, which knows nothing of it
    cluster.hosts[leader].thaw()


async def _one_standby_silent(cluster: PatroniCluster) -> None:
    _, [standby, _] = await _leader_and_standbys(cluster)
    await _silent([standby], _SILENT_SECONDS)


async def _standbys_silent(cluster: PatroniCluster) -> None:
    _, standbys = await _leader_and_standbys(cluster)
    await _silent(standbys, _SILENT_SECONDS)


async def _standbys_silent_then_leader_dies(cluster: PatroniCluster) -> None:
    leader, standbys = await _leader_and_standbys(cluster)
    for each in standbys:
        each.freeze()
    await asyncio.sleep(_SILENT_SECONDS)
    await cluster.hosts[leader].kill()
    for each in standbys:
        each.thaw()
    await cluster.another_leader(leader)
    cluster.hosts[leader].start()


async def _etcd_silent(cluster: PatroniCluster) -> None:
    await _silent([cluster.etcd], _ETCD_SILENT_SECONDS)


async def _silent(hosts: list[Host], seconds: float) -> None:
    for each in hosts:
        each.freeze()
    await asyncio.sleep(seconds)
    for each in hosts:
        each.thaw()


FAULTS = [
    Fault("switchover by `patronictl`", PatroniCluster.switch_over),
    Fault("the leader's host dies", _host_dies),
    Fault("the leader's PostgreSQL dies", _postgresql_dies),
    Fault("the leader's host is frozen, and comes back", _host_freezes),
    Fault(f"one standby is silent for {_SILENT_SECONDS} s", _one_standby_silent),
    Fault(f"both standbys are silent for {_SILENT_SECONDS} s", _standbys_silent),
    Fault("both standbys are silent, then the leader's host dies", _standbys_silent_then_leader_dies),
    Fault(f"etcd is silent for {_ETCD_SILENT_SECONDS} s", _etcd_silent),
]
