"""`python -m tests.chaos.holder URL GROUP SLOTS SECONDS`: takes slots, says "held", and waits to be killed."""

import asyncio
import sys

from app.ratelimit import Slot
from app.ratelimit.redis import RedisLimiter, open_redis

SECRET = bytes(32)
TIMEOUT_SECONDS = 5


def limiter(url: str) -> RedisLimiter:
    return RedisLimiter(open_redis(url), secret=SECRET, timeout_seconds=TIMEOUT_SECONDS)


async def _hold(url: str, group: str, slots: int, seconds: int) -> None:
    held = limiter(url)
    for number in range(slots):
        result = await held.take([], group=group, slot=Slot("key", slots, seconds, f"held {number}"))
        assert result.allowed
    sys.stdout.write("held\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_hold(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
