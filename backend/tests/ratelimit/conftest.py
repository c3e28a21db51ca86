"""Limiters by a clock that the test sets, and limiters as the processes of a server have them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.redis import RedisLimiter, open_redis
from redis.asyncio import Redis
from structlog.types import EventDict
from tests.ratelimit.processes import FAULTS, PROCESSES, Fault, Process, RecordingRedisLimiter, Start
from tests.ratelimit.sync_limiter import PATIENCE_SECONDS, Clock, NewRedisLimiter, NewSyncLimiter, SyncLimiter
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """An event loop that runs while a synchronous test waits for a call."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="session")
def new_in_memory(runner: asyncio.Runner) -> NewSyncLimiter:
    def new() -> SyncLimiter:
        clock = Clock()
        return SyncLimiter(MemoryLimiter(clock=clock), clock, runner)

    return new


@pytest.fixture(scope="session")
def new_in_redis(runner: asyncio.Runner, redis_url: str) -> Iterator[NewSyncLimiter]:
    """Each has a secret of its own, and with it buckets of its own."""
    client = open_redis(redis_url)

    def new() -> SyncLimiter:
        clock = Clock()
        secret = secrets.token_bytes()
        limiter = RedisLimiter(client, secret=secret, timeout_seconds=PATIENCE_SECONDS, clock=clock)
        return SyncLimiter(limiter, clock, runner)

    yield new
    runner.run(client.aclose())


@pytest.fixture(scope="session", params=["memory", "redis"])
def new_sync_limiter(request: pytest.FixtureRequest) -> NewSyncLimiter:
    """Every implementation of the port."""
    new: NewSyncLimiter = request.getfixturevalue(f"new_in_{request.param}")
    return new


@pytest.fixture
def limiter(new_sync_limiter: NewSyncLimiter) -> SyncLimiter:
    return new_sync_limiter()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that inspect it, empty it and freeze it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def inspector(server: RedisServer) -> AsyncIterator[Redis]:
    """A client that inspects the server, which begins empty."""
    client: Redis = Redis.from_url(server.url, decode_responses=True)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def new_limiter(server: RedisServer) -> AsyncIterator[NewRedisLimiter]:
    """Limiters as processes have them: one secret, connections of their own, and the clock of the server."""
    shared_secret = secrets.token_bytes()
    async with AsyncExitStack() as stack:

        def new(*, secret: bytes = shared_secret, timeout_seconds: float = PATIENCE_SECONDS) -> RedisLimiter:
            limiter = RedisLimiter(open_redis(server.url), secret=secret, timeout_seconds=timeout_seconds)
            stack.push_async_callback(limiter.close)
            return limiter

        yield new


@pytest.fixture
def faulty_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that one test may break."""
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest) -> Fault:
    return FAULTS[request.param]


@pytest.fixture
def log_lines() -> Iterator[list[EventDict]]:
    """What is logged during the test."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
async def start(faulty_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts processes that share the faulty Redis, and probe it often."""
    monkeypatch.setattr("app.ratelimit.fallback.PROBE_SECONDS", 0.02)
    async with AsyncExitStack() as stack:

        async def started(*, timeout_seconds: float = PATIENCE_SECONDS) -> list[Process]:
            limiters = [
                RecordingRedisLimiter(faulty_redis.url, timeout_seconds=timeout_seconds) for _ in range(PROCESSES)
            ]
            processes = [Process(limiter) for limiter in limiters]
            for process in processes:
                stack.push_async_callback(process.limiter.close)
                await process.limiter.open()
            return processes

        yield started
