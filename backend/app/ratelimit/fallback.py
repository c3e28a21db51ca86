"""What limits do while the shared state is out of reach: each process holds its own share."""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress

from app.core.logs import logger
from app.core.metrics import Metrics
from app.ratelimit import Charge, Lease, Limit, Taken
from app.ratelimit.batches import OutOfReach
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.redis import RedisLimiter

PROBE_SECONDS = 0.5
"""How often an unreachable Redis is tried: its return is noticed within about that time."""

_WIDE = Limit(1_000_000, 1)


class FallbackLimiter:
    """A limiter that is shared while it can be, and this process's own while it cannot.

    The first call that Redis does not decide in time is decided here, and so is every later one, at once, until a probe
    has seen Redis decide again. No call ever fails because of Redis, and only those that were on their way when it
    failed wait for it.
    """

    def __init__(self, shared: RedisLimiter, own: MemoryLimiter, metrics: Metrics) -> None:
        self._shared = shared
        self._own = own
        self._metrics = metrics
        self._outage: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects before the first call has to. Where that fails, the process starts on its own."""
        try:
            await self._shared.reach()
        except OutOfReach as error:
            self._leave(error)

    async def take(self, charges: Sequence[Charge], *, group: str, lease: Lease | None = None) -> Taken:
        if self._outage is None:
            try:
                return await self._shared.take(charges, group=group, lease=lease)
            except OutOfReach as error:
                self._leave(error)
        self._metrics.own_decisions.inc()
        return await self._own.take(charges, group=group, lease=lease)

    async def give_back(self, charges: Sequence[Charge], *, group: str) -> None:
        if self._outage is None:
            try:
                await self._shared.give_back(charges, group=group)
            except OutOfReach as error:
                self._leave(error)
        else:
            await self._own.give_back(charges, group=group)

    def end(self, lease: Lease, *, group: str) -> None:
        if self._own.has(lease, group=group):
            self._own.end(lease, group=group)
        elif self._outage is None:
            self._shared.end(lease, group=group)
        else:
            self._shared.end_later(lease, group=group)

    async def close(self) -> None:
        if self._outage is not None:
            self._outage.cancel()
            with suppress(asyncio.CancelledError):
                await self._outage
        await self._shared.close()

    def _leave(self, error: OutOfReach) -> None:
        if self._outage is None:  # many calls may have failed together
            self._metrics.limit_outages.inc()
            logger.warning("limits_on_their_own", reason=error.reason)
            self._outage = asyncio.create_task(self._return())

    async def _return(self) -> None:
        probe = Charge("probe", secrets.token_hex(8), _WIDE)
        decides = False
        while not decides:
            await asyncio.sleep(PROBE_SECONDS)
            decides = await self._decides(probe)
        self._outage = None
        logger.info("limits_shared_again")

    async def _decides(self, probe: Charge) -> bool:
        """Whether Redis can be reached, and writes in time."""
        try:
            await self._shared.reach()
            await self._shared.take([probe], group=probe.who)
        except OutOfReach:
            return False
        except Exception:
            logger.exception("probe_failed")  # whatever it meets: without another try limits were never shared again
            return False
        return True
