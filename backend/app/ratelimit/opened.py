"""The limiter, opened on the settings."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.core.metrics import Metrics
from app.core.settings import Settings
from app.ratelimit import Limiter
from app.ratelimit.fallback import FallbackLimiter
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.redis import RedisLimiter, open_redis


@asynccontextmanager
async def open_limiter(settings: Settings, clock: Callable[[], float], metrics: Metrics) -> AsyncIterator[Limiter]:
    """Limits in Redis where there is one, and in this process where there is none or while it cannot be reached."""
    own = MemoryLimiter(clock=clock, processes=settings.processes)
    if settings.redis_url is None:
        yield own
        return
    client, timeout_seconds = open_redis(settings.redis_url.get_secret_value()), settings.redis_timeout_ms / 1000
    shared = RedisLimiter(client, secret=settings.signing_secret, timeout_seconds=timeout_seconds)
    limiter = FallbackLimiter(shared, own, metrics)
    await limiter.open()
    try:
        yield limiter
    finally:
        await limiter.close()
