"""What an operator sees of each fault: how it is made, which metric moves, which line is written, which alert fires."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.engine import make_url
from tests.harness import on_server
from tests.ops.deployment import Deployment

_PAGE_BYTES = 4096
_CUT = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'NAME'"


@dataclass(frozen=True)
class Sign:
    """What one alert sees of a fault. `metric` is an expression, and `becomes` its sum over all series meanwhile."""

    metric: str
    becomes: Literal["rises", "is 0", "is 1"]
    line: str
    alert: str

    def has_moved(self, before: float, now: float) -> bool:
        """Whether the metric has become what it becomes."""
        return now > before if self.becomes == "rises" else now == float(self.becomes[-1])


@dataclass(frozen=True)
class Fault:
    """One of them, with a context manager that makes it."""

    situation: str
    make: Callable[[Deployment], AbstractAsyncContextManager[None]]
    signs: Sequence[Sign]
    model: str = "picture"
    """What is asked for meanwhile."""

    @property
    def rows(self) -> Sequence[str]:
        """Its rows in docs/monitoring.md."""
        return [
            f"| {self.situation} | `{sign.metric}` {sign.becomes} | `{sign.line}` "
            f"| [`{sign.alert}`](#{sign.alert.lower()}) |"
            for sign in self.signs
        ]


@asynccontextmanager
async def _nothing(_deployment: Deployment) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _full_disk(deployment: Deployment) -> AsyncIterator[None]:
    deployment.resize_disk(free=_PAGE_BYTES)
    yield
    deployment.resize_disk(free=16 * 1024**3)


def _altered_database(change: str, back: str) -> Callable[[Deployment], AbstractAsyncContextManager[None]]:
    """The database with this change, for connections that are made from now on: there are no others."""

    @asynccontextmanager
    async def altered(deployment: Deployment) -> AsyncIterator[None]:
        name = make_url(deployment.database_url).database
        elsewhere = make_url(deployment.database_url).set(database="postgres").render_as_string(hide_password=False)
        cut = _CUT.replace("NAME", str(name))
        for statement in (f"alter database {name} {change}", cut):
            await asyncio.to_thread(on_server, elsewhere, statement)
        yield
        for statement in (f"alter database {name} {back}", cut):
            await asyncio.to_thread(on_server, elsewhere, statement)

    return altered


@asynccontextmanager
async def _dead_worker(deployment: Deployment) -> AsyncIterator[None]:
    os.kill(deployment.workers[0], signal.SIGKILL)
    yield
    await deployment.until_two_workers_count()


@asynccontextmanager
async def _no_redis(deployment: Deployment) -> AsyncIterator[None]:
    deployment.redis.stop()
    yield
    deployment.redis.start()


_AWAY = _altered_database("allow_connections false", "allow_connections true")
_READ_ONLY = _altered_database("set default_transaction_read_only = on", "reset default_transaction_read_only")

FAULTS = (
    Fault(
        "a provider refuses its key",
        _nothing,
        [
            Sign(
                'nanobanana_provider_tries_total{result="unusable"}',
                *("rises", "provider_unusable", "NanobananaRouteUnusable"),
            ),
            Sign("nanobanana_routes_open", "rises", "route_opened", "NanobananaRouteOpen"),
        ],
        model="refused",
    ),
    Fault(
        "the disk of the images is full",
        _full_disk,
        [Sign("nanobanana_store_failing", "is 1", "store_failing", "NanobananaStoreFailing")],
    ),
    Fault(
        "the database is a standby, or read-only",
        _READ_ONLY,
        [
            Sign(
                'nanobanana_database_errors_total{sqlstate="25006"}',
                *("rises", "database_not_writable", "NanobananaDatabaseNotWritable"),
            ),
            Sign(
                "nanobanana_ledger_failures_total",
                *("rises", "request_failed", "NanobananaLedgerFailures"),
            ),
        ],
    ),
    Fault(
        "the database is away",
        _AWAY,
        [Sign("nanobanana_database_writable", "is 0", "ledger_not_connected", "NanobananaDatabaseNotWritable")],
    ),
    Fault(
        "a worker dies",
        _dead_worker,
        [Sign("nanobanana_worker_restarts_total", "rises", "worker_died", "NanobananaWorkerDied")],
    ),
    Fault(
        "Redis is away",
        _no_redis,
        [Sign("nanobanana_limits_not_shared", "rises", "limits_on_their_own", "NanobananaLimitsNotShared")],
    ),
)
