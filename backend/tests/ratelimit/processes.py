"""Processes that limit together while they can, all in one event loop, and the troubles that Redis can be in."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from app.core.metrics import Metrics
from app.ratelimit import Charge, Lease, Limit, Taken
from app.ratelimit.fallback import FallbackLimiter
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.redis import RedisLimiter, open_redis
from structlog.types import EventDict
from tests.harness import looks
from tests.ratelimit.sources import PATIENCE_SECONDS
from tests.redis_server import RedisServer

PROCESSES = 3
LIMIT = Limit(10, 3600)
GROUP = "usr_ada"

LEFT, RETURNED = "limits_on_their_own", "limits_shared_again"


class Watched(RedisLimiter):
    """Remembers what it was asked for."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        super().__init__(open_redis(url), secret=b"one for all", timeout_seconds=timeout_seconds)
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.probes = 0

    async def reach(self) -> None:
        self.probes += 1
        await super().reach()

    async def take(self, charges: Sequence[Charge], *, group: str, lease: Lease | None = None) -> Taken:
        self.asked.append(group)
        return await super().take(charges, group=group, lease=lease)

    async def give_back(self, charges: Sequence[Charge], *, group: str) -> None:
        self.asked.append(group)
        await super().give_back(charges, group=group)

    def end(self, lease: Lease, *, group: str) -> None:
        self.ended.append(lease.id)
        super().end(lease, group=group)


@dataclass
class Process:
    """One of several that share their limits."""

    shared: Watched
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        own = MemoryLimiter(clock=lambda: 1_000.0, processes=PROCESSES)
        self.limiter = FallbackLimiter(self.shared, own, self.metrics)

    async def take(self, who: str = "key_ada", *, lease: Lease | None = None) -> Taken:
        return await self.limiter.take([Charge("key", who, LIMIT)], group=GROUP, lease=lease)

    async def give_back(self, who: str = "key_ada") -> None:
        await self.limiter.give_back([Charge("key", who, LIMIT)], group=GROUP)

    def counted(self, name: str) -> int:
        """What a counter says in the metrics of this process."""
        lines = self.metrics.text().decode().splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f"nanobanana_{name}_total ")]
        return int(float(value))


Start = Callable[..., Awaitable[list[Process]]]


@dataclass(frozen=True)
class Trouble:
    """Something that keeps Redis from deciding, and its end."""

    begin: Callable[[RedisServer], object]
    end: Callable[[RedisServer], object]
    timeout_seconds: float = PATIENCE_SECONDS


TROUBLES = {
    "stopped": Trouble(RedisServer.stop, RedisServer.start),
    "frozen": Trouble(RedisServer.freeze, RedisServer.thaw, timeout_seconds=1.5),
    "read-only": Trouble(
        lambda server: server.command("REPLICAOF", "127.0.0.1", "1"),
        lambda server: server.command("REPLICAOF", "NO", "ONE"),
    ),
    "out of memory": Trouble(
        lambda server: server.command("CONFIG", "SET", "maxmemory", "1"),
        lambda server: server.command("CONFIG", "SET", "maxmemory", "0"),
    ),
}


async def takes(processes: Sequence[Process], count: int, who: str = "key_ada") -> int:
    """How many of so many attempts pass, made at once over all the processes."""
    taken = await asyncio.gather(*(processes[number % len(processes)].take(who) for number in range(count)))
    return sum(each.allowed for each in taken)


def events(lines: Sequence[EventDict]) -> list[str]:
    return [line["event"] for line in lines]


async def until(condition: Callable[[], bool]) -> None:
    """Returns once it holds."""
    for _ in looks():
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to hold")


async def until_left(processes: list[Process]) -> None:
    """Once every process has noticed."""
    await takes(processes, PROCESSES, "noticing")


async def until_returned(lines: list[EventDict]) -> None:
    """Once all of them share again after each outage."""
    await until(lambda: events(lines).count(RETURNED) == events(lines).count(LEFT))
