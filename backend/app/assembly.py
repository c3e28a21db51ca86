"""The only place where the parts are put together: for the server, the command line, tests and benchmarks alike."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from app.catalogue.configured import catalogue_of
from app.catalogue.opened import open_catalogue
from app.core.bounds import EdgeBounds
from app.core.byte_budget import ByteBudget
from app.core.clock import DatabaseClock
from app.core.db import SessionMaker, connect_for_writing, create_engine
from app.core.detached import DetachedTasks
from app.core.fair_queue import FairPool, FairQueue
from app.core.log_stream import dropped_lines_counted
from app.core.metrics import Metrics
from app.core.pool import BoundedPool
from app.core.security import TokenKey
from app.core.settings import ConfigurationError, Settings
from app.core.shared_calls import SharedCalls
from app.core.tracing import Tracing, open_tracing
from app.generations.callers import CallerCache
from app.generations.collaborators import Generations
from app.generations.drawn import DrawnImages
from app.generations.ledger import Ledger
from app.generations.ledger.writer import Connect, Writer
from app.generations.lifetime import lifetime_of
from app.generations.sweep import Sweeper
from app.ratelimit import Limiter
from app.ratelimit.fallback import FallbackLimiter
from app.ratelimit.memory import MemoryLimiter
from app.ratelimit.policies import Policies
from app.ratelimit.redis import RedisLimiter, open_redis
from app.ratelimit.reservations import Reservations
from app.services import Services
from app.storage.configured import monitored_store
from app.storage.health import MonitoredStore
from app.traced import TracedLedger, TracedLimiter, TracedStore, traced_catalogue

_DECODING_NICENESS = 5
"""The niceness of threads that decode what was paid: behind the event loop, before hashes and drawings."""

_SCALED_AT_A_TIME = 4
"""Stored images that one process reads and scales at a time: so many are in memory as a whole."""


@dataclass(frozen=True, kw_only=True)
class Externals:
    """What is taken from outside this process, and a test can replace: clocks, a connection, and how long clients may
    take.

    `clock`, in seconds since 1970, dates tokens; the database dates what is stored. Limits in memory and the cache of
    callers count the seconds of `limit_clock` and `cache_clock`. `connect` makes the ledger's connection; None makes it
    as the settings have it.
    """

    clock: Callable[[], float] = time.time
    limit_clock: Callable[[], float] = time.monotonic
    cache_clock: Callable[[], float] = time.monotonic
    connect: Connect | None = None
    edge_bounds: EdgeBounds = field(default_factory=EdgeBounds)


_REAL = Externals()


@asynccontextmanager
async def open_services(
    settings: Settings, externals: Externals = _REAL, *, metrics: Metrics | None = None
) -> AsyncIterator[Services]:
    """All services on these settings, closed at the end, the ledger first.

    Raises ConfigurationError without `database_url` or a secret.
    """
    database_url, metrics = require_database_url(settings), metrics or Metrics()
    async with AsyncExitStack() as stack:
        stack.enter_context(dropped_lines_counted(metrics.dropped_log_lines.inc))
        direct_url = settings.database_direct_url
        engine = create_engine(database_url, pool_size=settings.database_pool_size, is_shared=direct_url is not None)
        stack.push_async_callback(engine.dispose)
        pools = stack.enter_context(_pools(settings))
        tracing = await stack.enter_async_context(_tracing(settings))
        limiter = await stack.enter_async_context(_limiter(settings, externals.limit_clock, metrics))
        if tracing is not None:
            limiter = TracedLimiter(limiter, tracing)
        writing_url = direct_url.get_secret_value() if direct_url else database_url
        connect = externals.connect or partial(connect_for_writing, writing_url)
        clock = DatabaseClock(externals.clock)
        ledger = await stack.enter_async_context(_ledger(settings, Writer(connect, clock), tracing))
        generations = await stack.enter_async_context(
            _generations(settings, engine, ledger, pools, clock=clock, metrics=metrics, tracing=tracing)
        )
        detached = DetachedTasks()
        stack.push_async_callback(detached.drain)
        yield Services(
            settings=settings,
            clock=externals.clock,
            metrics=metrics,
            tracing=tracing,
            engine=engine,
            sessions=_session_maker(engine),
            hashing=pools.hashing,
            token_key=TokenKey.derive(settings.signing_secret),
            limiter=limiter,
            logins=Reservations(limiter, waiting_max=settings.hash_queue_max),
            policies=Policies.of(settings),
            callers=CallerCache(clock=externals.cache_clock),
            generations=generations,
            detached=detached,
            paid_answer_memory=ByteBudget(settings.answer_memory_mib * 1024 * 1024 // 2),
            free_answer_memory=ByteBudget(settings.answer_memory_mib * 1024 * 1024 // 2),
        )


def _session_maker(engine: AsyncEngine) -> SessionMaker:
    return async_sessionmaker(engine, expire_on_commit=False)


def require_database_url(settings: Settings) -> str:
    """The URL. Raises ConfigurationError where there is none."""
    if settings.database_url is None:
        raise ConfigurationError("DATABASE_URL is missing")
    return settings.database_url.get_secret_value()


class _Pools(NamedTuple):
    hashing: BoundedPool
    drawing: FairPool
    decoding: BoundedPool


@contextmanager
def _pools(settings: Settings) -> Iterator[_Pools]:
    """The threads of this process: to hash passwords, to draw images of the stub and scale images for viewers, and to
    decode what a provider sent, which is paid. Each kind has threads and a queue of its own: none fills another's.
    """
    # Of the images that a provider draws at a time, all may wait to be decoded; and as the queue is in order, no more
    # than as many that were decoded wait to be converted to another format.
    paid = 2 * settings.provider_calls_max
    open_pool = partial(BoundedPool.for_cores_left, processes=settings.workers)
    open_fair_pool = partial(FairPool.for_cores_left, processes=settings.workers)
    with (
        closing(open_pool(queue_max=settings.hash_queue_max, name="hash-passwords")) as hashing,
        closing(open_fair_pool(queue_max=settings.drawing_queue_max, name="draw-images")) as drawing,
        closing(open_pool(queue_max=paid, name="decode-images", niceness=_DECODING_NICENESS)) as decoding,
    ):
        yield _Pools(hashing, drawing, decoding)


@asynccontextmanager
async def _tracing(settings: Settings) -> AsyncIterator[Tracing | None]:
    tracing = open_tracing(settings)
    try:
        yield tracing
    finally:
        if tracing is not None:
            await tracing.close()


@asynccontextmanager
async def _ledger(settings: Settings, writer: Writer, tracing: Tracing | None) -> AsyncIterator[Ledger]:
    new_ledger = Ledger if tracing is None else partial(TracedLedger, tracing=tracing)
    ledger = new_ledger(writer, queue_max=settings.record_queue_max, deadline_seconds=settings.record_deadline_seconds)
    ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def _generations(
    settings: Settings,
    engine: AsyncEngine,
    ledger: Ledger,
    pools: _Pools,
    *,
    clock: DatabaseClock,
    metrics: Metrics,
    tracing: Tracing | None,
) -> AsyncIterator[Generations]:
    """Catalogue and store of the settings, while a sweeper deletes images that no client can ask for any more."""
    monitor = MonitoredStore if tracing is None else partial(TracedStore, tracing=tracing)
    async with (
        monitored_store(settings, monitor) as store,
        open_catalogue(
            catalogue_of(settings), settings, drawing=pools.drawing, decoding=pools.decoding, metrics=metrics
        ) as catalogue,
    ):
        generations = Generations(
            sessions=_session_maker(engine),
            ledger=ledger,
            catalogue=catalogue if tracing is None else traced_catalogue(catalogue, tracing),
            drawing=pools.drawing,
            decoding=pools.decoding,
            store=store,
            metrics=metrics,
            drawn=DrawnImages(),
            thumbnail_calls=SharedCalls(),
            thumbnail_turns=FairQueue(slots=_SCALED_AT_A_TIME, waiting_max=settings.drawing_queue_max),
            public_url=settings.public_url,
            lifetime=lifetime_of(settings),
            clock=clock,
        )
        sweeper = Sweeper(generations, engine, settings.image_retention_days, metrics)
        sweeping = asyncio.create_task(sweeper.run())
        try:
            yield generations
        finally:
            sweeping.cancel()
            await asyncio.wait({sweeping})


@asynccontextmanager
async def _limiter(settings: Settings, clock: Callable[[], float], metrics: Metrics) -> AsyncIterator[Limiter]:
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
