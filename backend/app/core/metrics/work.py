"""Images and what they need: providers, the ledger, limits, pools, the store."""

from collections.abc import Iterable

from app.core.metrics.families import Families
from app.core.pool import BoundedPool

SQLSTATES = ("08006", "25006", "40001", "40P01", "42501", "42P01", "53100", "53200", "53300", "55P03", "57014", "57P01")
"""The sqlstates that are counted by name."""
OTHER_SQLSTATE, NO_SQLSTATE = "other", "none"
_TAKEN_CLASS = "23"  # such as an email that is taken: an answer, and no fault

JOB_OUTCOMES = ("expired", "cancelled", "key_revoked", "account_disabled", "attempts_exhausted", "lost")
"""The codes with which an asynchronous generation ends without being drawn."""

_PROVIDER_SECONDS = (0.5, 1, 2.5, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class ImageMetrics:
    """Images, and the routes of the catalogue that draw them."""

    def __init__(self, families: Families) -> None:
        self.ended = families.counter(
            "images",
            "Images that were asked for, by how they ended: `delivered`, or the code of an error. The route is empty "
            "where none was needed or tried.",
            *("model", "route", "outcome"),
        )
        self.tries = families.counter(
            "provider_tries",
            "Images asked of a route, by how that ended: `drawn`, or the name of a failure.",
            *("route", "result"),
        )
        self.seconds = families.histogram(
            "provider_seconds",
            "Seconds until an image that was asked of a route was there, or had failed.",
            "route",
            bounds=_PROVIDER_SECONDS,
        )
        self.routes_open = families.gauge("routes_open", "Workers whose breaker of a route is open.", "route")
        self.calls = families.gauge("provider_calls", "Images that a route draws now.", "route")
        self.calls_waiting = families.gauge(
            "provider_calls_waiting", "Images that wait until the route draws fewer than it may.", "route"
        )

    def begin(self, route: str, results: Iterable[str]) -> None:
        """Shows zero for a route that has not been tried."""
        self.set_route_state(route, "closed")
        for result in results:
            self.tries.begin(route, result)

    def set_route_state(self, route: str, state: str) -> None:
        """Shows whether this worker tries other routes before this one: `open` or `closed`."""
        self.routes_open.set(state == "open", route)


class JobMetrics:
    """Asynchronous generations of the whole deployment, counted in images. Each process reads how many there are."""

    def __init__(self, families: Families) -> None:
        now = "a few seconds ago, of all accounts"
        self.waiting = families.gauge(
            "jobs_waiting", f"Asynchronous images that wait for a worker: {now}.", "class", mode="livemax"
        )
        self.running = families.gauge(
            "jobs_running", f"Asynchronous images that workers have: {now}.", "class", mode="livemax"
        )
        self.oldest_seconds = families.gauge(
            "jobs_oldest_seconds",
            f"Seconds since the oldest of those that wait was accepted: {now}; 0 where none waits.",
            "class",
            mode="livemax",
        )
        self.ended = families.counter(
            "jobs_ended",
            "Asynchronous images that ended otherwise than by being drawn, by their code. What commands cancel is not "
            "counted.",
            "outcome",
            values=JOB_OUTCOMES,
        )


class DatabaseMetrics:
    """The ledger, and the connections to PostgreSQL."""

    def __init__(self, families: Families) -> None:
        self.queue = families.gauge("ledger_queue", "Requests that wait to be recorded or settled.")
        self.batch_size = families.histogram(
            "ledger_batch_size", "Requests in one commit of the ledger.", bounds=_BATCH_SIZES
        )
        self.commit_seconds = families.histogram(
            "ledger_commit_seconds", "Seconds that a commit of the ledger takes.", bounds=_COMMIT_SECONDS
        )
        self.failures = families.counter(
            "ledger_failures",
            "Requests without a verdict of the ledger: `unavailable` was certainly not recorded, of `unknown` that "
            "cannot be known.",
            "outcome",
            values=("unavailable", "unknown"),
        )
        self.writable = families.gauge(
            "database_writable",
            "1 while the ledger can write, at least every ten seconds; 0 where the database is away, full or read-only "
            "for a worker.",
            mode="livemin",
        )
        self._errors = families.counter(
            "database_errors",
            f"Errors of PostgreSQL, by sqlstate; `{OTHER_SQLSTATE}` for those that are not in the list, and "
            f"`{NO_SQLSTATE}` where it was not reached.",
            "sqlstate",
            values=(*SQLSTATES, OTHER_SQLSTATE, NO_SQLSTATE),
        )
        self.connections = families.gauge("database_connections", "Database connections in use, the ledger's left out.")
        self.connections_max = families.gauge(
            "database_connections_max", "`DATABASE_POOL_SIZE`, of all workers together."
        )

    def count_commit(self, requests: int, seconds: float) -> None:
        """Counts one commit of the ledger."""
        self.batch_size.observe(requests)
        self.commit_seconds.observe(seconds)

    def count_failure(self, *, is_unknown: bool) -> None:
        """Counts a request that the ledger has not recorded or settled."""
        self.failures.add("unknown" if is_unknown else "unavailable")

    def count_error(self, error: BaseException) -> None:
        """Counts an error of the driver or of SQLAlchemy."""
        sqlstate = getattr(getattr(error, "orig", None) or error, "sqlstate", None)
        if sqlstate and sqlstate[:2] == _TAKEN_CLASS:
            return
        if sqlstate not in SQLSTATES:
            sqlstate = OTHER_SQLSTATE if sqlstate else NO_SQLSTATE
        self._errors.add(sqlstate)


class LimitMetrics:
    """Limits of callers."""

    def __init__(self, families: Families) -> None:
        self.refusals = families.counter(
            "limit_refusals", "Calls that a limit refused, or in mode `observe` would have.", "limit", "mode"
        )
        self.outages = families.counter("limit_outages", "How often a worker lost its shared limits.")
        self.own_decisions = families.counter("limit_own_decisions", "Calls decided by a worker without shared limits.")
        self.not_shared = families.gauge("limits_not_shared", "Workers that decide by themselves, without Redis.")
        self.slots_used = 0
        families.gauge(
            "limit_slots_used", "Slots of `GENERATE_CONCURRENCY_PER_KEY` that running generations hold."
        ).watch(lambda: self.slots_used)


class PoolMetrics:
    """Threads, and where images are kept."""

    def __init__(self, families: Families) -> None:
        self.jobs = families.gauge(
            "pool_jobs",
            "Work that threads do: `hashing` passwords, `drawing`, `decoding` and `taking_in` images.",
            "pool",
        )
        self.jobs_waiting = families.gauge("pool_jobs_waiting", "Work that waits for such a thread.", "pool")
        self.store_failing = families.gauge(
            "store_failing",
            "1 where a worker could not write an image, or none in 10 s, until it can again.",
            mode="livemax",
        )
        self.store_free_bytes = families.gauge(
            "store_free_bytes", "Bytes that may still be written; of the store `disk`.", "store", mode="livemin"
        )
        self.uploads = families.gauge("uploads", "Uploaded images of all accounts, a minute ago.", mode="livemax")
        self.upload_bytes = families.gauge("upload_bytes", "The bytes of these images.", mode="livemax")
        self.sweeps_stopped = families.counter(
            "sweeps_stopped", "Sweeps that found implausibly many images to be too old, and deleted none."
        )
        self.prunes_stopped = families.counter(
            "prunes_stopped", "Times at which a month of generations was implausibly long due, and not dropped."
        )

    def watch(self, name: str, pool: BoundedPool) -> None:
        """Shows what these threads do, under this name."""
        self.jobs.watch(lambda: pool.jobs, name)
        self.jobs_waiting.watch(lambda: pool.jobs_waiting, name)
