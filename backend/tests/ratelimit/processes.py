"""Processes that share their limits while Redis decides, all in one event loop, and the faults that Redis can have."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from app.core.metrics import Metrics
from app.ratelimit import Limit, Slot, Take, TakeResult
from app.ratelimit.fallback import FallbackLimiter
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.redis import RedisLimiter, open_redis
from structlog.types import EventDict
from tests.harness import looks
from tests.ratelimit.sync_limiter import PATIENCE_SECONDS
from tests.redis_server import RedisServer

PROCESSES = 3
LIMIT = Limit(10, 3600)
GROUP = "usr_ada"

OUTAGE_BEGAN, OUTAGE_ENDED = "limits_on_their_own", "limits_shared_again"


class RecordingRedisLimiter(RedisLimiter):
    """Records the calls that it gets."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        super().__init__(open_redis(url), secret=b"one for all", timeout_seconds=timeout_seconds)
        self.groups: list[str] = []
        """The group of each call to take or to give back."""
        self.released: list[str] = []
        self.probes = 0

    async def connect(self) -> None:
        self.probes += 1
        await super().connect()

    async def take(self, takes: Sequence[Take], *, group: str, slot: Slot | None = None) -> TakeResult:
        self.groups.append(group)
        return await super().take(takes, group=group, slot=slot)

    async def give_back(self, takes: Sequence[Take], *, group: str) -> None:
        self.groups.append(group)
        await super().give_back(takes, group=group)

    def release(self, slot: Slot, *, group: str) -> None:
        self.released.append(slot.id)
        super().release(slot, group=group)


@dataclass
class Process:
    """One of the processes that share their limits."""

    shared: RecordingRedisLimiter
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        local = MemoryLimiter(clock=lambda: 1_000.0, processes=PROCESSES)
        self.limiter = FallbackLimiter(self.shared, local, self.metrics)

    async def take(self, subject: str = "key_ada", *, slot: Slot | None = None) -> TakeResult:
        return await self.limiter.take([Take("key", subject, LIMIT)], group=GROUP, slot=slot)

    async def give_back(self, subject: str = "key_ada") -> None:
        await self.limiter.give_back([Take("key", subject, LIMIT)], group=GROUP)

    def counted(self, name: str) -> int:
        """The value of a counter in the metrics of this process."""
        lines = self.metrics.text().decode().splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith(f"nanobanana_{name}_total ")]
        return int(float(value))


Start = Callable[..., Awaitable[list[Process]]]


@dataclass(frozen=True)
class Fault:
    """What keeps Redis from deciding, and how that ends."""

    begin: Callable[[RedisServer], object]
    end: Callable[[RedisServer], object]
    timeout_seconds: float = PATIENCE_SECONDS


FAULTS = {
    "stopped": Fault(RedisServer.stop, RedisServer.start),
    "frozen": Fault(RedisServer.freeze, RedisServer.thaw, timeout_seconds=1.5),
    "read-only": Fault(
        lambda server: server.command("REPLICAOF", "127.0.0.1", "1"),
        lambda server: server.command("REPLICAOF", "NO", "ONE"),
    ),
    "out of memory": Fault(
        lambda server: server.command("CONFIG", "SET", "maxmemory", "1"),
        lambda server: server.command("CONFIG", "SET", "maxmemory", "0"),
    ),
}


async def count_allowed(processes: Sequence[Process], calls: int, subject: str = "key_ada") -> int:
    """How many of so many calls are allowed, made at once and spread over the processes."""
    results = await asyncio.gather(*(processes[number % len(processes)].take(subject) for number in range(calls)))
    return sum(result.allowed for result in results)


def events(lines: Sequence[EventDict]) -> list[str]:
    return [line["event"] for line in lines]


async def until(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds."""
    for _ in looks():
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition never held")


async def until_noticed(processes: list[Process]) -> None:
    """Returns once every process has noticed that Redis does not decide."""
    await count_allowed(processes, PROCESSES, "noticing")


async def until_ended(lines: list[EventDict]) -> None:
    """Returns once every outage that has begun has ended."""
    await until(lambda: events(lines).count(OUTAGE_ENDED) == events(lines).count(OUTAGE_BEGAN))
