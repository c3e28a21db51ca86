"""What is looked after beside the requests, by each process of `serve` and of `nanobanana work`. It is also done where
BILLING is off now: what was granted and charged before stays.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from app.billing.expiry import GrantExpiry
from app.billing.figures import Figures
from app.billing.healing import PurchaseSweeper
from app.billing.purchases import Purchases
from app.billing.reporter import Reporter
from app.billing.subscriptions import finish_pending
from app.core.db import Connect, SessionMaker
from app.core.metrics.billing import BillingMetrics
from app.core.repeating import repeat

_MINUTE = 60
_COUNT_SECONDS = 15


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work that is done so many seconds after it was done. Any number of processes may do it at once."""

    name: str
    work: Callable[[], Awaitable[object]]
    seconds: float


def tasks_of(
    sessions: SessionMaker, connect: Connect, purchases: Purchases | None, metrics: BillingMetrics
) -> Sequence[Task]:
    """All of them. `connect` makes a connection to the database without a pooler in transaction mode; without
    `purchases` Stripe is not asked for anything.
    """
    figures = Figures(sessions, metrics)
    tasks = [
        Task(name="expire_grants", work=GrantExpiry(sessions).sweep, seconds=_MINUTE),
        Task(name="finish_plans", work=partial(finish_pending, sessions), seconds=1),
        Task(name="show_charged", work=figures.show_charged, seconds=_COUNT_SECONDS),
    ]
    if purchases is not None:
        tasks += [
            Task(name="report", work=Reporter(connect, purchases.stripe, metrics).report, seconds=_MINUTE),
            Task(name="follow_stripe", work=PurchaseSweeper(purchases, connect).sweep, seconds=5 * _MINUTE),
            Task(name="show_unreported", work=figures.show_unreported, seconds=_COUNT_SECONDS),
        ]
    return tasks


async def run(tasks: Sequence[Task]) -> None:
    """Does all of them, as `repeat` does, until it is cancelled."""
    async with asyncio.TaskGroup() as group:
        for each in tasks:
            group.create_task(repeat(each.work, seconds=each.seconds, task=each.name))
