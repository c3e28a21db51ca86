"""Limits in Redis, and in the memory of each process while Redis cannot decide."""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress

from app.core.cancellation import raise_if_cancelled
from app.core.logs import logger
from app.core.metrics import Metrics
from app.ratelimit import Limit, Slot, Take, TakeResult
from app.ratelimit.batches import RedisUnavailable
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.redis import RedisLimiter

PROBE_SECONDS = 0.5
"""How often an unavailable Redis is probed: its return is noticed within about that time."""

_PROBE_LIMIT = Limit(1_000_000, 1)


class FallbackLimiter:
    """A limiter whose calls Redis decides while it can, and otherwise the memory of this process, which holds a share.

    The first call that Redis does not decide in time is decided in memory, and so is every later one, without asking
    Redis, until a probe has seen it decide again. No call fails because of Redis, and only those that were on their way
    when it failed wait for it.
    """

    def __init__(self, shared: RedisLimiter, local: MemoryLimiter, metrics: Metrics) -> None:
        self._shared = shared
        self._local = local
        self._metrics = metrics.limits
        self._metrics.not_shared.watch(lambda: self._outage is not None)
        self._outage: asyncio.Task[None] | None = None

    @property
    def is_degraded(self) -> bool:
        return self._outage is not None

    async def open(self) -> None:
        """Connects, so that the first call does not have to. If Redis is unavailable, an outage begins here."""
        try:
            await self._shared.connect()
        except RedisUnavailable as error:
            self._begin_outage(error)

    async def take(self, takes: Sequence[Take], *, group: str, slot: Slot | None = None) -> TakeResult:
        if self._outage is None:
            try:
                return await self._shared.take(takes, group=group, slot=slot)
            except RedisUnavailable as error:
                self._begin_outage(error)
        self._metrics.own_decisions.add()
        return await self._local.take(takes, group=group, slot=slot)

    async def give_back(self, takes: Sequence[Take], *, group: str) -> None:
        if self._outage is None:
            try:
                await self._shared.give_back(takes, group=group)
            except RedisUnavailable as error:
                self._begin_outage(error)
        else:
            await self._local.give_back(takes, group=group)

    def release(self, slot: Slot, *, group: str) -> None:
        if self._local.holds(slot, group=group):
            self._local.release(slot, group=group)
        elif self._outage is None:
            self._shared.release(slot, group=group)
        else:
            self._shared.release_later(slot, group=group)

    async def close(self) -> None:
        if self._outage is not None:
            self._outage.cancel()
            with suppress(asyncio.CancelledError):
                await self._outage
        await self._shared.close()

    def _begin_outage(self, error: RedisUnavailable) -> None:
        if self._outage is None:  # many calls may have failed together
            self._metrics.outages.add()
            logger.warning("limits_on_their_own", every_time=True, reason=error.reason, sentence=error.sentence)
            self._outage = asyncio.create_task(self._probe_until_redis_decides())

    async def _probe_until_redis_decides(self) -> None:
        take = Take("probe", secrets.token_hex(8), _PROBE_LIMIT)
        decides = False
        while not decides:
            await asyncio.sleep(PROBE_SECONDS)
            decides = await self._redis_decides(take)
            raise_if_cancelled()
        self._outage = None
        logger.info("limits_shared_again")

    async def _redis_decides(self, take: Take) -> bool:
        """Whether Redis can be reached, and writes in time."""
        try:
            await self._shared.connect()
            await self._shared.take([take], group=take.subject)
        except RedisUnavailable:
            return False
        except Exception:
            logger.exception("probe_failed")  # an error that ended the probing would end shared limits for good
            return False
        return True
