"""What is open while the program runs: one typed object for the server, the command line, tests and benchmarks."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from app.billing.purchases import Purchases
from app.core.byte_budget import ByteBudget
from app.core.db import SessionMaker
from app.core.detached import DetachedTasks
from app.core.draining import Draining
from app.core.fair_queue import FairPool
from app.core.metrics import Metrics
from app.core.security import TokenKey
from app.core.settings import Settings
from app.core.tracing import Tracing
from app.database_check import DatabaseCheck
from app.generations.callers import CallerCache
from app.generations.collaborators import Generations
from app.generations.jobs.waiting import WaitingCallers
from app.ratelimit import Limiter
from app.ratelimit.policies import Policies
from app.ratelimit.reservations import Reservations


@dataclass(frozen=True)
class Services:
    """The parts that `assembly.open_services` has opened, and closes."""

    settings: Settings
    clock: Callable[[], float]
    """Seconds since 1970 by this process: dates tokens. What is stored is dated by `generations.clock`."""
    draining: Draining
    """Whether the process is to stop."""
    metrics: Metrics
    tracing: Tracing | None
    """None where nothing is traced: then no part of the services is one of `traced.py`."""
    engine: AsyncEngine
    database_check: DatabaseCheck
    sessions: SessionMaker
    hashing: FairPool
    """Threads that hash passwords."""
    token_key: TokenKey
    limiter: Limiter
    logins: Reservations
    """Takes from the limits of failed logins, for those that are being checked."""
    policies: Policies
    """The limits of the settings."""
    callers: CallerCache
    generations: Generations
    worker: asyncio.Task[None] | None
    """The work on asynchronous generations in this process; None where WORK is off."""
    waiting_callers: WaitingCallers
    """Those who wait for asynchronous generations in this process."""
    purchases: Purchases | None
    """What is bought at Stripe; None without STRIPE_SECRET_KEY."""
    detached: DetachedTasks
    """Generations whose callers watch them, and may leave."""
    paid_answer_memory: ByteBudget
    """What answers with images in base64 may hold together while they are sent."""
    free_answer_memory: ByteBudget
    """The same for images of the stub, apart, so that they keep nobody from what was paid."""

    @property
    def now(self) -> datetime:
        """What `clock` says, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)
