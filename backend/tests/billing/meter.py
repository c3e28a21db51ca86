"""Stripe's meter as the reporter meets it: it forgets identifiers after a day, loses answers and refuses."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from app.payments import StripeRefused, StripeUnavailable
from tests.harness import Clock

Fault = Literal["answer lost", "not reached", "refused"]

DAY = 24 * 3600.0


@dataclass
class FakeMeter:
    """`faults` are what becomes of the next calls to send, in order; those after them succeed."""

    clock: Clock = field(default_factory=lambda: Clock(0.0))
    faults: list[Fault] = field(default_factory=list)
    totals: Counter[tuple[str, datetime]] = field(default_factory=Counter)
    calls: list[str] = field(default_factory=list)
    _known: dict[str, float] = field(default_factory=dict)

    async def send_meter_event(
        self, *, customer_id: str, identifier: str, value: int, at: datetime, **_: object
    ) -> None:
        self.calls.append(identifier)
        fault = self.faults.pop(0) if self.faults else None
        if fault == "refused":
            raise StripeRefused(400, kind="invalid_request_error", code="", parameter="", request_id="req_1")
        if fault == "not reached":
            raise StripeUnavailable
        if self.clock() - self._known.get(identifier, -DAY) >= DAY:
            self._known[identifier] = self.clock()
            self.totals[customer_id, at] += value
        if fault == "answer lost":
            raise StripeUnavailable

    async def meter_total(self, customer_id: str, hour: datetime) -> int:
        return self.totals[customer_id, hour]
