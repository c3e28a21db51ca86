"""The only place where the parts are put together: for the server, the command line, tests and benchmarks alike."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.pool import QueuePool

from app.billing.purchases import Purchases, open_purchases
from app.billing.tasks import run as run_tasks
from app.billing.tasks import tasks_of
from app.catalogue.configured import catalogue_of
from app.catalogue.model import REFERENCES_MAX, Catalogue
from app.catalogue.opened import open_catalogue
from app.core.bell import Bell
from app.core.blobs import BlobSpace
from app.core.bounds import EdgeBounds
from app.core.byte_budget import ByteBudget
from app.core.clock import DatabaseClock
from app.core.db import Connect, SessionMaker, connect_for_writing, create_engine
from app.core.detached import DetachedTasks
from app.core.draining import Draining
from app.core.fair_queue import FairQueue
from app.core.fetching import open_fetcher
from app.core.log_stream import dropped_lines_counted
from app.core.metrics import Metrics
from app.core.metrics.billing import BillingMetrics
from app.core.security import TokenKey
from app.core.settings import ConfigurationError, Settings
from app.core.tracing import Tracing, open_tracing
from app.database_check import DatabaseCheck
from app.generations.callers import CallerCache, find_callers
from app.generations.collaborators import Generations, UploadBounds
from app.generations.jobs.waiting import WaitingCallers
from app.generations.jobs.work import note_swept
from app.generations.jobs.worker import working
from app.generations.ledger import Ledger
from app.generations.ledger.writer import Writer
from app.generations.lifetime import lifetime_of
from app.generations.places import places_in
from app.generations.prune import Pruner
from app.generations.request_rows import request_rows_in
from app.generations.sweep import Sweeper
from app.payments.opened import open_stripe
from app.ratelimit.opened import open_limiter
from app.ratelimit.policies import Policies
from app.ratelimit.reservations import Reservations
from app.services import Services
from app.storage.configured import monitored_store
from app.storage.health import MonitoredStore
from app.threads import TAKEN_IN_AT_A_TIME, Threads, open_threads
from app.traced import TracedLedger, TracedLimiter, TracedStore, traced_catalogue

_SCALED_AT_A_TIME = 4
"""Stored images that one process reads and scales at a time: so many are in memory as a whole."""


@dataclass(frozen=True, kw_only=True)
class Externals:
    """What is taken from outside this process, and a test can replace: clocks, a connection, and how long clients may
    take.

    `clock`, in seconds since 1970, dates tokens; the database dates what is stored. Limits in memory and the cache of
    callers count the seconds of `limit_clock` and `cache_clock`. `connect` makes the ledger's connection; None makes it
    as the settings have it. The server sets `draining` before it stops the process; asynchronous generations that were
    sent to a provider by then have `job_drain_seconds` to end, by default JOB_DEADLINE_SECONDS. `catalogue` None is
    that of the settings.
    """

    clock: Callable[[], float] = time.time
    limit_clock: Callable[[], float] = time.monotonic
    cache_clock: Callable[[], float] = time.monotonic
    connect: Connect | None = None
    edge_bounds: EdgeBounds = field(default_factory=EdgeBounds)
    job_drain_seconds: float | None = None
    draining: Draining = field(default_factory=Draining)
    catalogue: Catalogue | None = None


_REAL = Externals()


@asynccontextmanager
async def open_services(
    settings: Settings, externals: Externals = _REAL, *, metrics: Metrics | None = None
) -> AsyncIterator[Services]:
    """All services on these settings, closed at the end in reverse order: the worker and detached generations before
    the ledger, the ledger before the database's pool.

    Raises ConfigurationError without `database_url` or a secret.
    """
    metrics, catalogue = metrics or Metrics(), externals.catalogue or catalogue_of(settings)
    metrics.process.billing_on.set(settings.charges)
    clock = DatabaseClock(externals.clock)
    connect = externals.connect or partial(connect_for_writing, writing_url(settings))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(dropped_lines_counted(metrics.process.dropped_log_lines.add_from_any_thread))
        engine = await enter(_engine(settings, metrics, pool_size=settings.database_pool_size))
        database_check = DatabaseCheck(await enter(_engine(settings, metrics, pool_size=1)))
        threads = stack.enter_context(open_threads(settings))
        tracing = await enter(open_tracing(settings))
        limiter = await enter(open_limiter(settings, externals.limit_clock, metrics))
        if tracing is not None:
            limiter = TracedLimiter(limiter, tracing)
        ledger = await enter(_ledger(settings, Writer(connect, clock, metrics), metrics, tracing))
        new_generations = partial(_generations, settings, engine, ledger, threads, catalogue=catalogue, clock=clock)
        generations = await enter(new_generations(metrics=metrics, tracing=tracing))
        await enter(_shown(metrics, engine, threads, generations.store))
        waiting_callers = WaitingCallers(generations, most=settings.waiting_callers_max)
        await enter(_in_background(waiting_callers.run()))
        purchases = await enter(_purchases(settings, generations.sessions, catalogue, metrics.billing))
        detached = DetachedTasks()
        stack.push_async_callback(detached.drain)
        new_worker = partial(working, generations, limiter, settings, externals.draining)
        worker = await enter(new_worker(drain_seconds=externals.job_drain_seconds))
        yield Services(
            settings=settings,
            clock=externals.clock,
            draining=externals.draining,
            metrics=metrics,
            tracing=tracing,
            engine=engine,
            database_check=database_check,
            sessions=_session_maker(engine),
            hashing=threads.hashing,
            token_key=TokenKey.derive(*settings.accepted_secrets),
            limiter=limiter,
            logins=Reservations(limiter, waiting_max=settings.hash_queue_max),
            policies=Policies.of(settings),
            callers=CallerCache(partial(find_callers, generations.sessions), clock=externals.cache_clock),
            generations=generations,
            worker=worker,
            waiting_callers=waiting_callers,
            purchases=purchases,
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


def writing_url(settings: Settings) -> str:
    """The database without a pooler in transaction mode, for what needs a session of its own. Raises ConfigurationError
    where there is none.
    """
    direct_url = settings.database_direct_url
    return direct_url.get_secret_value() if direct_url else require_database_url(settings)


@asynccontextmanager
async def _engine(settings: Settings, metrics: Metrics, *, pool_size: int) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(
        require_database_url(settings),
        pool_size=pool_size,
        is_shared=settings.database_direct_url is not None,
        on_error=metrics.database.count_error,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _ledger(
    settings: Settings, writer: Writer, metrics: Metrics, tracing: Tracing | None
) -> AsyncIterator[Ledger]:
    new_ledger = Ledger if tracing is None else partial(TracedLedger, tracing=tracing)
    writer.waiting_max = settings.jobs_waiting_per_account
    ledger = new_ledger(
        writer,
        queue_max=settings.record_queue_max,
        deadline_seconds=settings.record_deadline_seconds,
        metrics=metrics,
    )
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
    threads: Threads,
    *,
    catalogue: Catalogue,
    clock: DatabaseClock,
    metrics: Metrics,
    tracing: Tracing | None,
) -> AsyncIterator[Generations]:
    """Catalogue and store of the settings, and what goes on beside the requests."""
    monitor = MonitoredStore if tracing is None else partial(TracedStore, tracing=tracing)
    blobs = _blob_space(settings, threads)
    bell = Bell(partial(connect_for_writing, writing_url(settings)))
    async with (
        monitored_store(settings, monitor) as store,
        open_fetcher(settings) as fetcher,
        open_catalogue(
            catalogue, settings, drawing=threads.drawing, decoding=threads.decoding, metrics=metrics, blobs=blobs
        ) as opened,
    ):
        sessions = _session_maker(engine)
        generations = Generations(
            sessions=sessions,
            places=places_in(sessions),
            request_rows=request_rows_in(sessions),
            ledger=ledger,
            catalogue=opened if tracing is None else traced_catalogue(opened, tracing),
            drawing=threads.drawing,
            decoding=threads.decoding,
            taking_in=threads.taking_in,
            store=store,
            fetcher=fetcher,
            metrics=metrics,
            thumbnail_turns=FairQueue(slots=_SCALED_AT_A_TIME, waiting_max=settings.drawing_queue_max),
            input_turns=FairQueue(
                slots=TAKEN_IN_AT_A_TIME,
                slots_per_group=TAKEN_IN_AT_A_TIME // 2,
                waiting_max=REFERENCES_MAX * settings.provider_calls_max,
            ),
            public_url=settings.public_url,
            lifetime=lifetime_of(settings),
            clock=clock,
            blobs=blobs,
            upload_bounds=UploadBounds.of(settings),
            bell=bell,
            charges=settings.charges,
        )
        ledger.when_swept(partial(note_swept, generations))
        async with _in_background(bell.run(), *_sweeping(settings, generations, engine)):
            yield generations


def _sweeping(settings: Settings, generations: Generations, engine: AsyncEngine) -> Iterator[Coroutine[Any, Any, None]]:
    """The work that deletes images for which no client can ask any more, and old months where that is set."""
    yield Sweeper(generations, engine, settings.image_retention_days, generations.metrics).run()
    if settings.ledger_retention_days is not None:
        days = settings.ledger_retention_days
        yield Pruner(generations, writing_url(settings), days, generations.metrics).run()


@asynccontextmanager
async def _purchases(
    settings: Settings, sessions: SessionMaker, catalogue: Catalogue, metrics: BillingMetrics
) -> AsyncIterator[Purchases | None]:
    """What is bought at Stripe, while the tasks of billing run."""
    async with open_stripe(settings) as stripe:
        purchases = open_purchases(settings, stripe, sessions, catalogue, metrics)
        connect = partial(connect_for_writing, writing_url(settings))
        async with _in_background(run_tasks(tasks_of(sessions, connect, purchases, metrics))):
            yield purchases


def _blob_space(settings: Settings, threads: Threads) -> BlobSpace:
    return BlobSpace(
        memory_bytes_max=settings.input_memory_mib * 1024 * 1024,
        file_bytes_max=settings.input_files_mib * 1024 * 1024,
        folder=settings.data_dir / "tmp",
        threads=threads.reading,
    )


@asynccontextmanager
async def _in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = {asyncio.create_task(work) for work in works}
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def _shown(metrics: Metrics, engine: AsyncEngine, threads: Threads, store: MonitoredStore) -> AsyncIterator[None]:
    """Keeps the metrics fresh, with what is in use of the threads and free in the store."""
    pool = engine.pool
    if isinstance(pool, QueuePool):
        metrics.database.connections.watch(pool.checkedout)
        metrics.database.connections_max.watch(pool.size)
    for name, pool_of_threads in threads._asdict().items():
        metrics.pools.watch(name, pool_of_threads)
    metrics.pools.store_failing.watch(lambda: store.is_failing)
    watching = store.watch_free_bytes(lambda free: metrics.pools.store_free_bytes.set(free, "disk"))
    async with _in_background(metrics.keep_fresh(), watching):
        yield
