"""Everything that a fault can meet."""

from dataclasses import dataclass

from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet
from tests.chaos.proxy import Proxy
from tests.harness import Account, Key


@dataclass
class Ground:
    """A server, its way to PostgreSQL, PostgreSQL, and an account to call with."""

    cluster: Cluster
    proxy: Proxy
    fleet: Fleet
    account: Account

    async def keys(self, count: int) -> list[Key]:
        return [await self.account.create_key() for _ in range(count)]
