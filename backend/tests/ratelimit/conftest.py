"""Sources of limits: with a clock that the test moves, and as processes have them."""

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
from tests.ratelimit.processes import PROCESSES, TROUBLES, Process, Start, Trouble, Watched
from tests.ratelimit.sources import PATIENCE_SECONDS, Clock, NewLimiter, NewSource, Source
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    """An event loop that runs while a synchronous test waits for an answer."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="session")
def new_memory(runner: asyncio.Runner) -> NewSource:
    def new() -> Source:
        clock = Clock()
        return Source(MemoryLimiter(clock=clock), clock, runner)

    return new


@pytest.fixture(scope="session")
def new_shared(runner: asyncio.Runner, redis_url: str) -> Iterator[NewSource]:
    """Each with a secret of its own, and so with buckets of its own."""
    client = open_redis(redis_url)

    def new() -> Source:
        clock = Clock()
        secret = secrets.token_bytes()
        limiter = RedisLimiter(client, secret=secret, timeout_seconds=PATIENCE_SECONDS, clock=clock)
        return Source(limiter, clock, runner)

    yield new
    runner.run(client.aclose())


@pytest.fixture(scope="session", params=["memory", "redis"])
def new_source(request: pytest.FixtureRequest) -> NewSource:
    """Every place where limits can be kept."""
    new: NewSource = request.getfixturevalue({"memory": "new_memory", "redis": "new_shared"}[request.param])
    return new


@pytest.fixture
def source(new_source: NewSource) -> Source:
    return new_source()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that look into it, empty it and freeze it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def looker(server: RedisServer) -> AsyncIterator[Redis]:
    """A client that looks at the server, which begins empty."""
    client: Redis = Redis.from_url(server.url, decode_responses=True)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def new_limiter(server: RedisServer) -> AsyncIterator[NewLimiter]:
    """Limiters as processes have them: with one secret, each with its own connections, by the clock of the server."""
    one_for_all = secrets.token_bytes()
    async with AsyncExitStack() as stack:

        def new(*, secret: bytes = one_for_all, timeout_seconds: float = PATIENCE_SECONDS) -> RedisLimiter:
            limiter = RedisLimiter(open_redis(server.url), secret=secret, timeout_seconds=timeout_seconds)
            stack.push_async_callback(limiter.close)
            return limiter

        yield new


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that one test may break."""
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(params=TROUBLES)
def trouble(request: pytest.FixtureRequest) -> Trouble:
    return TROUBLES[request.param]


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """What is logged meanwhile."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
async def start(victim: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts processes that share what is in the Redis that may be broken, and try it often."""
    monkeypatch.setattr("app.ratelimit.fallback.PROBE_SECONDS", 0.02)
    async with AsyncExitStack() as stack:

        async def started(*, timeout_seconds: float = PATIENCE_SECONDS) -> list[Process]:
            processes = [Process(Watched(victim.url, timeout_seconds=timeout_seconds)) for _ in range(PROCESSES)]
            for process in processes:
                stack.push_async_callback(process.limiter.close)
                await process.limiter.open()
            return processes

        yield started
