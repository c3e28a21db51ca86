"""The slots that jobs hold of routes that draw few at a time, over all machines."""

import asyncio
import math

from app.catalogue.model import Route
from app.providers import NoFreeSlot
from app.ratelimit import Limiter, Slot, TakeResult, new_slot_id


class RouteSlots:
    """The slots of one job: one of the `jobs_max` of each of its routes that has such a bound, while the job is drawn.
    Of a process that dies they become free after `seconds`.
    """

    def __init__(self, limiter: Limiter, *, seconds: float) -> None:
        self._limiter = limiter
        self._seconds = math.ceil(seconds)
        self._taking: dict[Slot, asyncio.Task[TakeResult]] = {}

    async def take(self, route: Route) -> None:
        """Returns once the job holds a slot of this route, at once if it does already. Raises NoFreeSlot."""
        if route.jobs_max is None:
            return
        found = next((each for slot, each in self._taking.items() if slot.subject == route.name), None)
        if found is None:
            slot = Slot(route.name, route.jobs_max, self._seconds, new_slot_id())
            found = self._taking[slot] = asyncio.create_task(self._limiter.take((), group=_group(slot), slot=slot))
        if not (await asyncio.shield(found)).allowed:
            raise NoFreeSlot

    async def release(self) -> None:
        """Frees all of them."""
        taking, self._taking = self._taking, {}
        for slot, task in taking.items():
            if (await task).allowed:
                self._limiter.release(slot, group=_group(slot))


def _group(slot: Slot) -> str:
    return f"jobs of {slot.subject}"
