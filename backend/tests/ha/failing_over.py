"""A database of three hosts in the place of one that faults stop and start."""

import asyncpg
from tests.chaos.cluster import Cluster
from tests.ha.cluster import PatroniCluster


class FailingOver(Cluster):
    """Stopping it ends the primary's host at once; starting it waits until a standby has taken its place."""

    def __init__(self, patroni: PatroniCluster) -> None:
        self._patroni = patroni
        self._former = ""

    async def stop_at_once(self) -> None:
        self._former = await self._patroni.leader()
        await self._patroni.hosts[self._former].kill()

    async def start(self) -> None:
        await self._patroni.another_leader(self._former)
        self._patroni.hosts[self._former].start()
        await self._patroni.settled()

    async def connect(self) -> asyncpg.Connection:
        return await self._patroni.connect()

    def logged(self, sqlstate: str) -> int:
        return self._patroni.logged(sqlstate)
