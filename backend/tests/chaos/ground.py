"""Everything that a fault can meet."""

import asyncio
from dataclasses import dataclass

from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet
from tests.chaos.proxy import Proxy
from tests.harness import Account, Key
from tests.redis_server import RedisServer

_SET_LIMITS = """
    update api_keys set generate_limit = coalesce($1, generate_limit),
    generate_concurrency = coalesce($2, generate_concurrency) where id = any($3)
"""


@dataclass
class Ground:
    """A server, its way to PostgreSQL, PostgreSQL, Redis, and an account to call with."""

    cluster: Cluster
    proxy: Proxy
    redis: RedisServer
    fleet: Fleet
    account: Account

    async def keys(self, count: int, *, limit: str | None = None, concurrency: int | None = None) -> list[Key]:
        """New keys of the account, with limits of their own where they are given."""
        keys = await asyncio.gather(*(self.account.create_key() for _ in range(count)))
        connection = await self.cluster.connect()
        await connection.execute(_SET_LIMITS, limit, concurrency, [key.id for key in keys])
        await connection.close()
        return keys

    async def limit_account(self, limit: str) -> None:
        """Limits all keys of the account together: those that no worker knows yet."""
        connection = await self.cluster.connect()
        await connection.execute("update users set generate_limit = $1 where id = $2", limit, self.account.id)
        await connection.close()
